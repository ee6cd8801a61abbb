"""Triton's model repository: `recommend/<revision>/{model.py, revision.json, bundles/<id>/, verdicts/<id>.json}`.

A version is written as `.tmp<revision>` and renamed, so the server never sees half of one; it is never changed
afterwards. The config names exactly one version to serve. The newest three stay, so that going back needs no registry.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from serving.triton import model_source
from sidrec import contract
from sidrec.bundle import Bundle, open_bundle
from sidrec.errors import ServingError
from sidrec.files import write_bytes_atomic, write_text_atomic
from sidrec.release.revision import BundleRef, Revision

KEEP = 3
REVISION_FILE = "revision.json"


def write_version(
    repository: Path,
    revision: Revision,
    export: Callable[[BundleRef, Path, Path], object],
    authorise: Callable[[Bundle, Path], object],
) -> Path:
    """Return the folder of a revision, whole.

    An existing version with the same contents is kept. The config is not touched: `point_to` does that.

    Args:
        export: copies a bundle and its verdict: (bundle, folder to write, verdict file to write).
        authorise: refuses a bundle that may not serve: (bundle, its verdict's path).

    Raises:
        BundleError: a bundle does not verify, or is not the one the revision binds.
        VerdictError: `authorise` refused.
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
            authorise(version_bundle(version, ref), verdict_file(version, ref))
        return version
    partial = model / f".tmp{revision.revision}"
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("bundles", "verdicts"):
        (partial / name).mkdir(parents=True)
    try:
        for ref in dict.fromkeys(revision.bundles):
            export(ref, partial / "bundles" / ref.bundle_id, verdict_file(partial, ref))
            authorise(version_bundle(partial, ref), verdict_file(partial, ref))
        write_text_atomic(partial / REVISION_FILE, revision.model_dump_json(indent=2) + "\n")
        shutil.copyfile(model_source(), partial / "model.py")
        # Before the version: one that is there is whole, and Triton asks it the warm-up.
        for name, raw in contract.warmup_files().items():
            write_bytes_atomic(model / "warmup" / name, raw)
        partial.rename(version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def point_to(repository: Path, revision: int, *, kind: str = "KIND_CPU", instances: int | None = None) -> None:
    """Make the config serve exactly this revision at the server's next load or start.

    Args:
        instances: Python processes that answer, each with one thread; None leaves as many as there are.
    """
    config = repository / contract.MODEL_NAME / "config.pbtxt"
    count = wanted_instances(repository) if instances is None else instances
    write_text_atomic(config, contract.config_pbtxt([revision], kind=kind, instances=count))


def pointed_to(repository: Path) -> int | None:
    """Return the revision that the config serves, None before the first."""
    config = repository / contract.MODEL_NAME / "config.pbtxt"
    if not config.exists():
        return None
    found = re.search(r"specific: \{ versions: \[ (\d+) \]", config.read_text(encoding="utf-8"))
    if found is None:
        raise ServingError("the config names no single version to serve", evidence=config, next_step="sidrec deploy")
    return int(found.group(1))


def wanted_instances(repository: Path) -> int:
    """Return how many Python processes the config asks for, 1 before the first config."""
    config = repository / contract.MODEL_NAME / "config.pbtxt"
    found = re.search(r"count: (\d+)", config.read_text(encoding="utf-8")) if config.exists() else None
    return 1 if found is None else int(found.group(1))


def revisions(repository: Path) -> list[int]:
    """Return the revisions in the repository, oldest first."""
    model = repository / contract.MODEL_NAME
    return sorted(int(path.name) for path in model.glob("*") if path.name.isdigit()) if model.exists() else []


def prune(repository: Path) -> list[int]:
    """Delete all but the newest three revisions and the one that is served; return those deleted.

    A version leaves by its name first, so that what a crash leaves of it is no version; the next call clears it away.
    """
    keep = {*revisions(repository)[-KEEP:], pointed_to(repository)}
    gone = [number for number in revisions(repository) if number not in keep]
    for number in gone:
        version = repository / contract.MODEL_NAME / str(number)
        version.rename(version.with_name(f".gone{number}"))
    for path in (repository / contract.MODEL_NAME).glob(".gone*"):
        shutil.rmtree(path, ignore_errors=True)
    return gone


def held(repository: Path, ref: BundleRef) -> Iterator[tuple[Path, Path]]:
    """Yield (bundle's folder, verdict's path) for every version that holds the bundle: a copy without the registry."""
    for number in reversed(revisions(repository)):
        version = repository / contract.MODEL_NAME / str(number)
        if ref in read_revision(version).bundles:
            yield version / "bundles" / ref.bundle_id, verdict_file(version, ref)


def read_revision(version: Path) -> Revision:
    """Return the revision document of a version folder."""
    path = version / REVISION_FILE
    if not path.is_file():
        raise ServingError(f"no {REVISION_FILE} in {version}", evidence=version, next_step="sidrec deploy")
    try:
        return Revision.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ServingError(
            f"{REVISION_FILE} of version {version.name} was altered: it is no revision ({error.errors()[0]['msg']})",
            evidence=path,
        ) from error


def version_bundle(version: Path, ref: BundleRef) -> Bundle:
    """Return a bundle of a version, after all its digests and its full hash were found to hold.

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
    return bundle


def verdict_file(version: Path, ref: BundleRef) -> Path:
    """Return where a version keeps the verdict on a bundle."""
    return version / "verdicts" / f"{ref.bundle_id}.json"
