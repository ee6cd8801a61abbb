"""BentoML's store keeps candidates whole, and what comes out of it is verified."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving import registry
from sidrec import files, home
from sidrec.bundle import Bundle, open_bundle
from sidrec.errors import BundleError, VerdictError
from sidrec.release.verdict import read_verdict
from tests.release_world import ROOT, gate, make_bundle, make_signed

INCONCLUSIVE = [gate("codebook"), gate("quality", "inconclusive"), gate("serving")]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "packaged")


@pytest.fixture
def verdict(bundle: Bundle, tmp_path: Path) -> Path:
    make_signed(bundle, tmp_path / "verdict.json")
    return tmp_path / "verdict.json"


def test_an_empty_registry_lists_nothing() -> None:
    """Before the first registration there is nothing, and asking makes no store."""
    assert registry.entries() == []
    assert registry.find("b-000000000000") is None
    assert registry.newest_passing() is None
    assert not home.registry_dir().exists()


def test_a_registered_bundle_is_found_whole(bundle: Bundle, verdict: Path) -> None:
    """The tag is the bundle's id; the files in the store are the bundle's."""
    tag = registry.register(bundle.folder, verdict)
    held = open_bundle(registry.bundle_folder(bundle.bundle_id))

    assert tag == f"sidrec:{bundle.bundle_id}"
    assert held.sha256 == bundle.sha256
    assert registry.verdict_path(bundle.bundle_id).read_bytes() == verdict.read_bytes()


def test_bentoml_itself_sees_it(bundle: Bundle, verdict: Path) -> None:
    """BentoML's own client, told the same folder, lists the model with its labels."""
    registry.register(bundle.folder, verdict)
    code = (
        "import bentoml; [m] = bentoml.models.list(); print(m.tag, m.info.labels['result'], m.info.metadata['sha256'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BENTOML_HOME": str(home.registry_dir())},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [f"sidrec:{bundle.bundle_id}", "pass", bundle.sha256]


def test_registering_again_changes_nothing(bundle: Bundle, verdict: Path) -> None:
    """A second registration of the same bundle and verdict is a no-op."""
    first = registry.register(bundle.folder, verdict)
    before = files.sha256_tree(home.registry_dir() / "models")

    assert registry.register(bundle.folder, verdict) == first
    assert files.sha256_tree(home.registry_dir() / "models") == before


def test_a_newer_verdict_counts_and_the_older_stays(bundle: Bundle, verdict: Path, tmp_path: Path) -> None:
    """Judged again, the newer verdict is the one to promote on; the ledger may still name the older."""
    registry.register(bundle.folder, verdict)
    newer = tmp_path / "newer.json"
    make_signed(bundle, newer, INCONCLUSIVE, now=datetime.now(UTC) + timedelta(seconds=2))
    registry.register(bundle.folder, newer)
    registry.register(bundle.folder, verdict)
    older = registry.verdict_path(bundle.bundle_id, files.sha256_file(verdict))

    assert read_verdict(registry.verdict_path(bundle.bundle_id)).result == "inconclusive"
    assert older.read_bytes() == verdict.read_bytes()
    with pytest.raises(VerdictError, match="has no verdict 00"):
        registry.verdict_path(bundle.bundle_id, "00")


def test_the_newest_passing_candidate_is_found(tmp_path: Path) -> None:
    """Later but inconclusive, or later but damaged, does not count."""
    made = [make_bundle(tmp_path / str(seed), seed) for seed in range(3)]
    for number, one in enumerate(made):
        path = tmp_path / f"{number}.json"
        make_signed(one, path, INCONCLUSIVE if number == 1 else None)
        registry.register(one.folder, path)
    first = registry.newest_passing()
    (registry.bundle_folder(made[2].bundle_id) / "model.json").write_text("{}")
    second = registry.newest_passing()

    assert [entry.bundle_id for entry in registry.entries()] == [one.bundle_id for one in reversed(made)]
    assert first is not None
    assert first.bundle_id == made[2].bundle_id
    assert second is not None
    assert second.bundle_id == made[0].bundle_id


def test_nothing_unjudged_gets_in(bundle: Bundle, verdict: Path, tmp_path: Path) -> None:
    """A failing verdict, another bundle's, a changed byte: the store stays as it was."""
    failing = tmp_path / "failing.json"
    make_signed(bundle, failing, [gate("codebook", "fail"), gate("quality"), gate("serving")])
    with pytest.raises(VerdictError, match="codebook says fail"):
        registry.register(bundle.folder, failing)
    with pytest.raises(VerdictError, match="is about"):
        registry.register(make_bundle(tmp_path / "other", seed=1).folder, verdict)
    weights = bundle.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        registry.register(bundle.folder, verdict)
    assert registry.entries() == []


def test_an_export_is_a_verified_copy(bundle: Bundle, verdict: Path, tmp_path: Path) -> None:
    """What is exported opens by itself and replaces what lay there."""
    registry.register(bundle.folder, verdict)
    target = tmp_path / "repository" / "bundle"
    target.mkdir(parents=True)
    (target / "stale.json").write_text("{}")

    assert registry.export(bundle.bundle_id, target).sha256 == bundle.sha256
    assert not (target / "stale.json").exists()
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_a_damaged_store_exports_nothing(bundle: Bundle, verdict: Path, tmp_path: Path) -> None:
    """A byte changed in the store is found on the way out; the target stays as it was."""
    registry.register(bundle.folder, verdict)
    path = registry.bundle_folder(bundle.bundle_id) / "catalogue.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    with pytest.raises(BundleError, match=r"catalogue\.parquet"):
        registry.export(bundle.bundle_id, tmp_path / "out" / "bundle")
    assert not list((tmp_path / "out").iterdir())


def test_one_bundle_under_anothers_name_is_not_exported(tmp_path: Path) -> None:
    """A valid bundle that somebody moved under another id is refused."""
    made = [make_bundle(tmp_path / str(seed), seed) for seed in range(2)]
    for number, one in enumerate(made):
        make_signed(one, tmp_path / f"{number}.json")
        registry.register(one.folder, tmp_path / f"{number}.json")
    folders = [registry.bundle_folder(one.bundle_id) for one in made]
    folders[0].rename(tmp_path / "aside")
    folders[1].rename(folders[0])

    with pytest.raises(BundleError, match=f"holds {made[1].bundle_id} where {made[0].bundle_id}"):
        registry.export(made[0].bundle_id, tmp_path / "out")


@pytest.mark.parametrize("left", ["nothing but a folder", "half a bundle", "no manifest"])
def test_a_killed_registration_is_finished_by_the_next(bundle: Bundle, verdict: Path, left: str) -> None:
    """Whatever a killed registration left, registering again makes the entry whole."""
    registry.register(bundle.folder, verdict)
    entry = registry.find(bundle.bundle_id)
    assert entry is not None
    if left == "nothing but a folder":
        (entry.folder / "model.yaml").unlink()
    (entry.bundle / ("manifest.json" if left == "no manifest" else "weights.safetensors")).unlink()
    (entry.folder / "verdict.json").unlink()

    registry.register(bundle.folder, verdict)

    assert open_bundle(registry.bundle_folder(bundle.bundle_id)).sha256 == bundle.sha256
    assert registry.verdict_path(bundle.bundle_id).exists()


def test_two_runs_that_end_together_make_one_entry(bundle: Bundle, verdict: Path) -> None:
    """Concurrent registrations of one bundle both succeed."""
    code = "import sys, pathlib; from serving import registry; registry.register(*map(pathlib.Path, sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(bundle.folder), str(verdict)]
    children = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]

    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert [entry.bundle_id for entry in registry.entries()] == [bundle.bundle_id]


def test_an_id_is_no_path(bundle: Bundle, verdict: Path) -> None:
    """A way round to a registered bundle is not its id."""
    registry.register(bundle.folder, verdict)

    assert registry.find(bundle.bundle_id) is not None
    assert registry.find(f"../sidrec/{bundle.bundle_id}") is None


@pytest.mark.parametrize("bundle_id", ["b-ffffffffffff", "../sidrec", ""])
def test_an_unknown_id_is_refused_with_the_next_step(bundle_id: str) -> None:
    """An id that is not in the store, or is no id at all, is said to be unknown."""
    with pytest.raises(BundleError, match="has no bundle") as unknown:
        registry.bundle_folder(bundle_id)
    assert unknown.value.next_step == "sidrec bundle list"
