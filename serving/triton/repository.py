"""Triton's model repository: `recommend/<revision>/{model.py, revision.json, bundles/<bundle id>/}`.

A version is written as `.tmp<revision>` and renamed, so the server never sees half of one; it is never changed
afterwards. The config names exactly one version to serve. The newest three stay, so that going back needs no registry.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from serving.triton import model_source
from sidrec import contract
from sidrec.bundle import open_bundle
from sidrec.errors import ServingError
from sidrec.files import write_text_atomic
from sidrec.release.revision import BundleRef, Revision

KEEP = 3
REVISION_FILE = "revision.json"


def write_version(
    repository: Path,
    revision: Revision,
    export: Callable[[str, Path], object],
) -> Path:
    """Return the folder of a revision, written from the bundles that `export(bundle_id, folder)` copies.

    A bundle that an older version of the repository holds is copied from there, so going back needs no registry. An
    existing version with the same contents is kept as it is. The config is not touched: `point_to` does that.

    Raises:
        BundleError: a bundle does not verify, or is not the one the revision binds.
        ServingError: this version exists with other contents.
    """
    model = repository / contract.MODEL_NAME
    version = model / str(revision.revision)
    if version.exists():
        if read_revision(version) != revision:
            raise ServingError(
                f"revision {revision.revision} is in the repository with other contents",
                evidence=version / REVISION_FILE,
            )
        for ref in revision.bundles:
            version_bundle(version, ref)
        return version
    partial = model / f".tmp{revision.revision}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "bundles").mkdir(parents=True)
    try:
        for ref in dict.fromkeys(revision.bundles):
            target = partial / "bundles" / ref.bundle_id
            kept = _held(model, ref)
            if kept is None:
                export(ref.bundle_id, target)
            else:
                shutil.copytree(kept, target)
            version_bundle(partial, ref)
        write_text_atomic(partial / REVISION_FILE, revision.model_dump_json(indent=2) + "\n")
        shutil.copyfile(model_source(), partial / "model.py")
        partial.rename(version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for name, raw in contract.warmup_files().items():
        file = model / "warmup" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(raw)
    return version


def point_to(repository: Path, revision: int, *, kind: str = "KIND_CPU") -> None:
    """Make the config serve exactly this revision at the server's next load or start."""
    write_text_atomic(repository / contract.MODEL_NAME / "config.pbtxt", contract.config_pbtxt([revision], kind=kind))


def pointed_to(repository: Path) -> int | None:
    """Return the revision that the config serves, None before the first."""
    config = repository / contract.MODEL_NAME / "config.pbtxt"
    if not config.exists():
        return None
    found = re.search(r"specific: \{ versions: \[ (\d+) \]", config.read_text(encoding="utf-8"))
    if found is None:
        raise ServingError("the config names no single version to serve", evidence=config, next_step="sidrec deploy")
    return int(found.group(1))


def revisions(repository: Path) -> list[int]:
    """Return the revisions in the repository, oldest first."""
    model = repository / contract.MODEL_NAME
    return sorted(int(path.name) for path in model.glob("*") if path.name.isdigit()) if model.exists() else []


def prune(repository: Path) -> list[int]:
    """Delete all but the newest three revisions and the one that is served; return those deleted."""
    keep = {*revisions(repository)[-KEEP:], pointed_to(repository)}
    gone = [number for number in revisions(repository) if number not in keep]
    for number in gone:
        shutil.rmtree(repository / contract.MODEL_NAME / str(number))
    return gone


def read_revision(version: Path) -> Revision:
    """Return the revision document of a version folder."""
    path = version / REVISION_FILE
    if not path.is_file():
        raise ServingError(f"no {REVISION_FILE} in {version}", evidence=version, next_step="sidrec deploy")
    return Revision.model_validate_json(path.read_text(encoding="utf-8"))


def version_bundle(version: Path, ref: BundleRef) -> Path:
    """Return the folder of a bundle in a version, after all its digests and its full hash were found to hold.

    Raises:
        BundleError: a file is missing or altered.
        ServingError: it is a sound bundle, but not the one that the revision binds.
    """
    folder = version / "bundles" / ref.bundle_id
    bundle = open_bundle(folder)
    if bundle.sha256 != ref.sha256:
        raise ServingError(
            f"the bundle in {folder.name} is {bundle.sha256}, the revision binds {ref.sha256}", evidence=folder
        )
    return folder


def _held(model: Path, ref: BundleRef) -> Path | None:
    for folder in sorted(model.glob(f"[0-9]*/bundles/{ref.bundle_id}")):
        if open_bundle(folder, verify=False).sha256 == ref.sha256:
            return folder
    return None
