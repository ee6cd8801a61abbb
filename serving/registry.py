"""Candidates in BentoML's model store: `sidrec:<bundle id>`, the bundle's files and the verdicts on it.

The store keeps; it decides nothing. Whoever loads a bundle from it verifies every digest and asks for the verdict.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sidrec import files, home
from sidrec.bundle import MANIFEST, Bundle, open_bundle
from sidrec.errors import BundleError, VerdictError
from sidrec.release.verdict import Verdict, check_verdict, read_verdict

MODEL = "sidrec"
BUNDLE = "bundle"
VERDICT = "verdict.json"
VERDICTS = "verdicts"
# BentoML's own record of the model.
_MODEL_FILE = "model.yaml"


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered candidate; its labels are what was true when it was registered."""

    bundle_id: str
    tag: str
    folder: Path
    labels: dict[str, str]
    registered_at: datetime

    @property
    def bundle(self) -> Path:
        """Folder of the bundle."""
        return self.folder / BUNDLE

    @property
    def verdict(self) -> Path:
        """File of the newest verdict."""
        return self.folder / VERDICT


def register(bundle_folder: Path, verdict_path: Path) -> str:
    """Return the tag under which bundle and verdict lie in the store.

    Registering the same bundle again changes nothing; with a newer verdict, the newer one counts from then on and the
    older stays, because the ledger may name it.

    Raises:
        BundleError: the bundle does not verify, or the store holds another one under its id.
        VerdictError: the verdict is not signed, expired, of another bundle, or says fail.
    """
    bundle = open_bundle(bundle_folder)
    verdict = check_verdict(verdict_path, bundle)
    if verdict.result == "fail":
        raise VerdictError(verdict.sentence, evidence=verdict_path)
    with _locked():
        entry = _whole_entry(bundle)
        if entry is None:
            _create(bundle, verdict)
            entry = _entry(bundle.bundle_id)
        _keep_verdict(entry, verdict_path)
    return entry.tag


def entries() -> list[Entry]:
    """Return every candidate, newest registration first."""
    folders = (home.registry_dir() / "models" / MODEL).glob("*/")
    found = [entry for folder in folders if (entry := find(folder.name)) is not None]
    return sorted(found, key=lambda entry: (entry.registered_at, entry.bundle_id), reverse=True)


def find(bundle_id: str) -> Entry | None:
    """Return the candidate with this id, None where there is none; a half-written registration is none."""
    folder = home.registry_dir() / "models" / MODEL / bundle_id
    if folder.name != bundle_id or not (folder / _MODEL_FILE).is_file() or not (folder / BUNDLE / MANIFEST).is_file():
        return None
    [model] = _store().list(f"{MODEL}:{bundle_id}")
    return Entry(
        bundle_id=bundle_id,
        tag=str(model.tag),
        folder=folder,
        labels=dict(model.info.labels),
        registered_at=model.info.creation_time,
    )


def newest_passing() -> Entry | None:
    """Return the candidate that was registered last and whose verdict still lets it pass."""
    return next((entry for entry in entries() if _passes(entry)), None)


def bundle_folder(bundle_id: str) -> Path:
    """Return the folder of a registered bundle, unverified.

    Raises:
        BundleError: the store has none of this id.
    """
    return _entry(bundle_id).bundle


def verdict_path(bundle_id: str, sha256: str | None = None) -> Path:
    """Return the newest verdict file of a registered bundle, or the one with this SHA-256 (as the ledger names it).

    Raises:
        BundleError: the store has no such bundle.
        VerdictError: it has no such verdict.
    """
    entry = _entry(bundle_id)
    path = entry.verdict if sha256 is None else entry.folder / VERDICTS / f"{sha256}.json"
    if not path.is_file():
        raise VerdictError(f"the registry has no verdict {sha256 or ''} on {bundle_id}", evidence=entry.folder)
    return path


def export(bundle_id: str, target: Path) -> Bundle:
    """Return the verified copy of a registered bundle that is whole or absent at `target`.

    Raises:
        BundleError: the store has none of this id, its copy does not verify, or another bundle lies under the id.
    """
    source = _entry(bundle_id).bundle
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, partial, symlinks=True)
        seen = open_bundle(partial).bundle_id
        if seen != bundle_id:
            raise BundleError(f"the registry holds {seen} where {bundle_id} should lie", evidence=source)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_bundle(target)


def _entry(bundle_id: str) -> Entry:
    entry = find(bundle_id)
    if entry is None:
        raise BundleError(
            f"the registry has no bundle {bundle_id}", evidence=home.registry_dir(), next_step="sidrec bundle list"
        )
    return entry


def _passes(entry: Entry) -> bool:
    """Whether a candidate may be promoted as it lies; a doubtful one is passed over, promoting it by name says why."""
    try:
        return check_verdict(entry.verdict, open_bundle(entry.bundle)).result == "pass"
    except (BundleError, VerdictError):
        return False


def _whole_entry(bundle: Bundle) -> Entry | None:
    """Return the entry of this very bundle; what a killed registration or a bad disk left of it is replaced."""
    folder = home.registry_dir() / "models" / MODEL / bundle.bundle_id
    if not (folder / _MODEL_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return None
    try:
        held = open_bundle(folder / BUNDLE)
    except BundleError as error:
        print(f"registry: the copy of {bundle.bundle_id} does not verify and is replaced: {error}", file=sys.stderr)
        shutil.rmtree(folder / BUNDLE, ignore_errors=True)
        shutil.copytree(bundle.folder, folder / BUNDLE)
        held = open_bundle(folder / BUNDLE)
    if held.sha256 != bundle.sha256:
        raise BundleError(
            f"the registry holds another bundle under {bundle.bundle_id}: {held.sha256} is not {bundle.sha256}",
            evidence=folder,
        )
    return _entry(bundle.bundle_id)


def _create(bundle: Bundle, verdict: Verdict) -> None:
    models, store = _bentoml(), _store()
    labels = {"kind": verdict.kind, "result": verdict.result, "recipe": verdict.recipe_name}
    metadata = {"sha256": bundle.sha256, "git_sha": verdict.git_sha}
    with models.create(f"{MODEL}:{bundle.bundle_id}", labels=labels, metadata=metadata, _model_store=store) as model:
        shutil.copytree(bundle.folder, Path(model.path_of(BUNDLE)))


def _keep_verdict(entry: Entry, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = entry.folder / VERDICTS / f"{files.sha256_file(path)}.json"
    if not named.exists():
        files.write_text_atomic(named, text)
    if not entry.verdict.exists() or read_verdict(entry.verdict).created_at <= read_verdict(path).created_at:
        files.write_text_atomic(entry.verdict, text)


def _bentoml() -> Any:
    # Both must stand before the first import; the command line's tracking wants the word "true".
    os.environ["BENTOML_HOME"] = str(home.registry_dir())
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    home.registry_dir().mkdir(parents=True, exist_ok=True)
    import bentoml.models

    return bentoml.models


def _store() -> Any:
    """Return the store under SIDREC_HOME; BentoML's own would stay at the folder that it first saw."""
    _bentoml()
    from bentoml._internal.models import ModelStore

    models = home.registry_dir() / "models"
    models.mkdir(parents=True, exist_ok=True)
    return ModelStore(models)


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the registry for one registration: two runs that end together must not write one entry."""
    home.registry_dir().mkdir(parents=True, exist_ok=True)
    with (home.registry_dir() / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
