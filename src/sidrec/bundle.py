"""The unit of release: a folder whose name is the digest of what is in it.

`manifest.json` is written last. `bundle_id` covers the content files only, so two runs that make the same bytes
make the same bundle; who made it, when and with which versions is provenance, beside the id.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sidrec import files as disk
from sidrec.errors import BundleError
from sidrec.recipe import Recipe, parse_recipe

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# Formats whose readers run no code. Anything else (.pt, .pkl, .bin, .npy, .joblib ...) can carry a pickle.
SAFE_SUFFIXES = frozenset({".json", ".jsonl", ".yaml", ".parquet", ".safetensors", ".txt", ".md"})
_MANIFEST_KEYS = frozenset({"schema_version", "bundle_id", "sha256", "files", "provenance", "checksum"})


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its folder, its address and its manifest."""

    folder: Path
    bundle_id: str
    sha256: str
    manifest: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The recipe that made the bundle."""
        return parse_recipe(self.path("recipe.yaml").read_text(encoding="utf-8"))

    @property
    def decode(self) -> dict[str, Any]:
        """How the bundle decodes: beam width, kind, as-of time, feature service, watermark, clock."""
        value: dict[str, Any] = disk.read_json(self.path("decode.json"))
        return value

    def path(self, name: str) -> Path:
        """Return where a content file lies.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self.manifest["files"]:
            raise BundleError(f"bundle {self.bundle_id} has no {name}", evidence=self.folder / MANIFEST)
        return self.folder / name


def write_bundle(folder: Path, files: Mapping[str, Path], provenance: Mapping[str, Any]) -> Bundle:
    """Return the bundle made of copies of `files`, whole or absent at `folder`.

    Args:
        files: path inside the bundle -> the file, or the folder, to copy there.
        provenance: git sha, versions, times: anything that must not change the id.

    Raises:
        BundleError: a source is missing, a name leaves the bundle, or a format could carry code.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    digests: dict[str, str] = {}
    try:
        for name, source in _expand(files):
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            digests[name] = disk.sha256_file(target)
        if not digests:
            raise BundleError("a bundle of no files has no address")
        sha256 = content_digest(digests)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "bundle_id": short_id(sha256),
            "sha256": sha256,
            "files": digests,
            "provenance": dict(provenance),
        }
        manifest = json.loads(_canonical(manifest))
        disk.write_text_atomic(partial / MANIFEST, _canonical(manifest | {"checksum": _checksum(manifest)}))
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_bundle(folder)


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Return the bundle in `folder`, after every file's digest was found to hold.

    Args:
        verify: False trusts the files' bytes (a listing); the manifest and the set of files are checked all the same.

    Raises:
        BundleError: it is no bundle, of another schema, or a file is missing, extra, altered or of an unsafe format;
            the file is named.
    """
    folder = folder.resolve()
    manifest = _read_manifest(folder)
    digests: dict[str, str] = manifest["files"]
    _check_names(folder, digests)
    if verify:
        for name, expected in sorted(digests.items()):
            seen = disk.sha256_file(folder / name)
            if seen != expected:
                raise BundleError(
                    f"{name} of bundle {manifest['bundle_id']} was altered or belongs to another bundle:"
                    f" its SHA-256 is {seen[:12]}…, the manifest says {expected[:12]}…",
                    evidence=folder / name,
                    next_step="take a fresh copy from the registry; this one must not serve",
                )
    return Bundle(folder=folder, bundle_id=manifest["bundle_id"], sha256=manifest["sha256"], manifest=manifest)


def content_digest(digests: Mapping[str, str]) -> str:
    """Return the hex SHA-256 over the sorted (path, digest) pairs."""
    lines = "".join(f"{name}\0{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def short_id(sha256: str) -> str:
    """Return the id that people read: `b-` and the first 12 hex digits."""
    return f"b-{sha256[:12]}"


def _expand(files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    seen: set[str] = set()
    for root, source in sorted(files.items()):
        if source.is_dir():
            pairs = [(f"{root}/{p.relative_to(source).as_posix()}", p) for p in sorted(source.rglob("*"))]
            pairs = [(name, path) for name, path in pairs if path.is_file()]
        elif source.is_file():
            pairs = [(root, source)]
        else:
            raise BundleError(f"nothing to bundle as {root}: {source} does not exist", evidence=source)
        for name, path in pairs:
            _check_name(name, path)
            if name in seen:
                raise BundleError(f"two sources claim {name}", evidence=path)
            seen.add(name)
            yield name, path


def _check_name(name: str, evidence: Path) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != name or not name.isprintable() or name == MANIFEST:
        raise BundleError(f"{name!r} is no name of a content file", evidence=evidence)
    if pure.suffix not in SAFE_SUFFIXES:
        raise BundleError(
            f"{name} is refused: {pure.suffix or 'a file without a suffix'} may carry code",
            evidence=evidence,
            next_step=f"store it as one of {', '.join(sorted(SAFE_SUFFIXES))}",
        )


def _check_names(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuse a folder whose files are not exactly the manifest's, or that holds a link out of itself."""
    present: set[str] = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{name} is a link; a bundle holds its own bytes", evidence=path)
        if path.is_dir():
            continue
        if not path.is_file():
            raise BundleError(f"{name} is not a plain file", evidence=path)
        if name != MANIFEST:
            present.add(name)
    for name in sorted(digests):
        _check_name(name, folder / name)
        if name not in present:
            raise BundleError(f"{name} is missing from the bundle", evidence=folder / MANIFEST)
    for name in sorted(present - set(digests)):
        raise BundleError(f"{name} is in the folder but not in the manifest", evidence=folder / name)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"no {MANIFEST} in {folder}: no bundle, or one whose writing was cut off",
            evidence=folder,
            next_step="sidrec bundle list",
        )
    try:
        text = path.read_bytes().decode("utf-8")
        manifest = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} does not parse: {error}", evidence=path) from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{MANIFEST} is no JSON object", evidence=path)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{MANIFEST} has schema_version {version!r}, this sidrec reads {SCHEMA_VERSION}", evidence=path
        )
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    whole = set(manifest) == _MANIFEST_KEYS and manifest["checksum"] == _checksum(body)
    # The bytes too: a manifest has one spelling, so a second one was written by somebody else.
    if not whole or text != _canonical(manifest):
        raise BundleError(f"{MANIFEST} was altered: its checksum does not hold", evidence=path)
    digests = manifest["files"]
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise BundleError(f"{MANIFEST} was altered: `files` is no table of digests", evidence=path)
    if manifest["sha256"] != content_digest(digests) or manifest["bundle_id"] != short_id(manifest["sha256"]):
        raise BundleError(f"{MANIFEST} was altered: bundle_id is not the address of its files", evidence=path)
    return manifest


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(body).encode()).hexdigest()
