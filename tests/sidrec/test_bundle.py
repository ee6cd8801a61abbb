"""A bundle opens exactly when it holds the bytes it was written with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.bundle import SCHEMA_VERSION, Bundle, content_digest, open_bundle, write_bundle
from sidrec.errors import BundleError

RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "s2gr_retail.yaml"
CONTENT = {
    "catalogue.parquet": b"PAR1 catalogue",
    "codebook/codebook.safetensors": b"\x00\x01\x02codewords",
    "codebook/embedder/embedder.json": b"{}",
    "decode.json": b'{"beam_width": 7}',
    "weights.safetensors": bytes(range(64)),
}


def make(folder: Path, content: dict[str, bytes] = CONTENT, provenance: dict[str, Any] | None = None) -> Bundle:
    """Write a bundle of `content` (and the retail recipe) at `folder / "bundle"`."""
    source = folder / "source"
    for name, data in content.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    files = {name: source / name for name in content} | {"recipe.yaml": RECIPE}
    return write_bundle(folder / "bundle", files, provenance or {"git_sha": "0", "created_at": "2020-01-01"})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make(tmp_path)


def test_opens_as_written(bundle: Bundle) -> None:
    """An untouched bundle opens under the id it was written with, with its recipe and its decode config."""
    opened = open_bundle(bundle.folder)

    assert opened == bundle
    assert opened.recipe.name == "s2gr_retail"
    assert opened.decode == {"beam_width": 7}
    assert opened.bundle_id == f"b-{opened.sha256[:12]}"


def test_id_is_the_digest_of_the_sorted_digests(bundle: Bundle) -> None:
    """The id can be recomputed by hand from the files alone."""
    import hashlib

    names = sorted([*CONTENT, "recipe.yaml"])
    lines = [f"{n}\0{hashlib.sha256((bundle.folder / n).read_bytes()).hexdigest()}\n" for n in names]

    assert bundle.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


@given(stamp=st.text(max_size=20), order=st.permutations(sorted(CONTENT)))
@settings(max_examples=15, deadline=None)
def test_id_ignores_provenance_and_order(
    tmp_path_factory: pytest.TempPathFactory, stamp: str, order: list[str]
) -> None:
    """Provenance and the order of the files change nothing in the id."""
    folder = tmp_path_factory.mktemp("order")
    first = make(folder / "a")
    second = make(folder / "b", {name: CONTENT[name] for name in order}, {"created_at": stamp, "git_sha": stamp})

    assert (second.bundle_id, second.sha256) == (first.bundle_id, first.sha256)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_flipped_bit_is_refused_and_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One flipped bit anywhere, the manifest included, is refused and the file is named."""
    folder = tmp_path_factory.mktemp("flip")
    bundle = make(folder)
    name = data.draw(st.sampled_from([*sorted(CONTENT), "recipe.yaml", "manifest.json"]))
    path = bundle.folder / name
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(raw))

    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        open_bundle(bundle.folder)


@given(st.dictionaries(st.sampled_from(sorted(CONTENT)), st.binary(max_size=8), min_size=1))
@settings(max_examples=40, deadline=None)
def test_id_changes_with_content(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, bytes]) -> None:
    """Two bundles share an id exactly when they share every byte."""
    folder = tmp_path_factory.mktemp("content")
    changed = CONTENT | changes

    same = make(folder / "a").bundle_id == make(folder / "b", changed).bundle_id

    assert same == (changed == CONTENT)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (lambda f: (f / "extra.json").write_text("{}"), "extra.json is in the folder"),
        (lambda f: _append(f / "decode.json"), "decode.json"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json"),
        (lambda f: (f / "weights.safetensors").rename(f / "weights.json"), "weights.safetensors is missing"),
        (lambda f: shutil.rmtree(f / "codebook"), "codebook/codebook.safetensors is missing"),
        (lambda f: (f / "notes.txt").symlink_to("/etc/hostname"), "notes.txt is a link"),
    ],
)
def test_missing_extra_and_altered_files_are_named(
    bundle: Bundle, break_it: Callable[[Path], object], named: str
) -> None:
    """Whatever is wrong with the folder, the message names the file."""
    break_it(bundle.folder)

    with pytest.raises(BundleError, match=named):
        open_bundle(bundle.folder)


def test_a_catalogue_of_another_bundle_is_refused(tmp_path: Path) -> None:
    """Two valid bundles whose catalogues were swapped are both refused, and the catalogue is named."""
    first = make(tmp_path / "a")
    second = make(tmp_path / "b", CONTENT | {"catalogue.parquet": b"PAR1 other"})
    paths = [b.folder / "catalogue.parquet" for b in (first, second)]
    contents = [p.read_bytes() for p in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)

    for bundle in (first, second):
        with pytest.raises(BundleError, match=r"catalogue\.parquet"):
            open_bundle(bundle.folder)


def test_a_consistent_forgery_gets_another_id(bundle: Bundle, tmp_path: Path) -> None:
    """Somebody who rewrites weights and manifest alike has made another bundle, not this one."""
    forged = make(tmp_path / "forged", CONTENT | {"weights.safetensors": b"evil"})

    assert open_bundle(forged.folder).bundle_id != bundle.bundle_id


@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl", "pytorch_model.bin", "x.npy", "model.joblib", "weights"])
def test_formats_that_can_carry_a_pickle_are_not_written(tmp_path: Path, name: str) -> None:
    """A file that some reader would unpickle never enters a bundle."""
    with pytest.raises(BundleError, match=name):
        make(tmp_path, {name: b"x"})


def test_a_pickle_named_in_the_manifest_is_refused_at_open(bundle: Bundle) -> None:
    """A bundle made elsewhere with a pickle in it does not open, whatever its manifest says."""
    from sidrec.bundle import _canonical, _checksum, short_id

    (bundle.folder / "weights.pt").write_bytes(b"x")
    digests = bundle.manifest["files"] | {"weights.pt": "0" * 64}
    sha256 = content_digest(digests)
    body = {k: v for k, v in bundle.manifest.items() if k != "checksum"}
    body |= {"files": digests, "sha256": sha256, "bundle_id": short_id(sha256)}
    (bundle.folder / "manifest.json").write_text(_canonical(body | {"checksum": _checksum(body)}))

    with pytest.raises(BundleError, match=r"weights\.pt is refused"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["../out.json", "/tmp/x.json", "a//b.json", "manifest.json", "a\nb.json"])
def test_names_stay_inside_the_bundle(tmp_path: Path, name: str) -> None:
    """No content file can be written outside the folder or over the manifest."""
    source = tmp_path / "x.json"
    source.write_text("{}")

    with pytest.raises(BundleError, match="no name"):
        write_bundle(tmp_path / "bundle", {name: source}, {})


def test_another_schema_is_refused(bundle: Bundle) -> None:
    """A manifest of a later format is refused with both versions named."""
    path = bundle.folder / "manifest.json"
    path.write_text(json.dumps(bundle.manifest | {"schema_version": SCHEMA_VERSION + 1}))

    with pytest.raises(BundleError, match=f"schema_version {SCHEMA_VERSION + 1}, this sidrec reads {SCHEMA_VERSION}"):
        open_bundle(bundle.folder)


def test_a_respelled_manifest_is_refused(bundle: Bundle) -> None:
    """A manifest has one spelling; the same values in another layout were written by somebody else."""
    path = bundle.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))

    with pytest.raises(BundleError, match=r"manifest\.json was altered"):
        open_bundle(bundle.folder)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A write that fails leaves neither a bundle nor a partial one."""
    good = tmp_path / "a.json"
    good.write_text("{}")

    with pytest.raises(BundleError, match="does not exist"):
        write_bundle(tmp_path / "out" / "bundle", {"a.json": good, "z.json": tmp_path / "none"}, {})
    assert not list((tmp_path / "out").glob("*"))


def test_folders_are_copied_whole_and_writing_again_replaces(bundle: Bundle, tmp_path: Path) -> None:
    """A folder becomes its files under its name; a second write over a first gives exactly the second."""
    source = tmp_path / "embedder"
    source.mkdir()
    (source / "embedder.json").write_text("{}")

    again = write_bundle(bundle.folder, {"embedder": source}, {})

    assert sorted(again.manifest["files"]) == ["embedder/embedder.json"]
    assert open_bundle(bundle.folder).bundle_id == again.bundle_id


def test_without_verification_only_bytes_are_trusted(bundle: Bundle) -> None:
    """A listing skips the digests but still misses a missing file."""
    (bundle.folder / "weights.safetensors").write_bytes(b"changed")
    open_bundle(bundle.folder, verify=False)
    (bundle.folder / "decode.json").unlink()

    with pytest.raises(BundleError, match=r"decode\.json"):
        open_bundle(bundle.folder, verify=False)
