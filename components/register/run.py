"""Register a bundle whose verdict is no fail as a candidate, and publish its semantic IDs to the feature store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving import registry
from sidrec import files, home
from sidrec.bundle import Bundle, open_bundle
from sidrec.errors import BundleError, VerdictError
from sidrec.recipe import Recipe
from sidrec.release.verdict import check_verdict

SECTIONS: tuple[str, ...] = ()


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/registration`.

    Raises:
        VerdictError: the verdict says fail (the gate that said so is named), or is none for this bundle.
    """
    bundle = open_bundle(inputs["bundle"])
    _refuse_broken(bundle)
    verdict = check_verdict(inputs["verdict"], bundle)
    if verdict.result == "fail":
        raise VerdictError(
            f"not registered. {verdict.sentence}",
            evidence=inputs["verdict"],
            next_step="read the evidence; the champion is as it was",
        )
    tag = registry.register(bundle.folder, inputs["verdict"])
    registration = {
        "schema_version": 1,
        "tag": tag,
        "bundle_id": bundle.bundle_id,
        "sha256": bundle.sha256,
        "result": verdict.result,
        "verdict_sha256": files.sha256_file(inputs["verdict"]),
    }
    files.write_json_atomic(folder / "registration", registration)
    summary = {key: registration[key] for key in ("tag", "bundle_id", "result")}
    codebook = bundle.folder / "codebook" / "codebook.json"
    # Analysts read semantic IDs from the store; serving never does, so a run without a store is whole all the same.
    lineage = files.read_json(codebook).get("lineage") if codebook.exists() else None
    # A system without a codebook has none: its items' only code is their number.
    if lineage is not None and home.feast_dir().exists():
        from feature_repo.semantic_ids import publish_semantic_ids

        summary["rows"] = publish_semantic_ids(bundle.folder / "catalogue.parquet", str(lineage))
    return summary


def _refuse_broken(bundle: Bundle) -> None:
    """Refuse what was broken on purpose, whatever the gates' limits let through."""
    health = bundle.folder / "codebook" / "health.json"
    fault = files.read_json(health).get("broken") if health.exists() else None
    if fault is not None:
        raise VerdictError(f"not registered: this run was given the fault {fault!r} by --break", evidence=health)


def still_holds(folder: Path) -> bool:
    """Return whether the registry still holds what was registered, verdict included, whole."""
    registration = files.read_json(folder / "registration")
    try:
        registry.verdict_path(registration["bundle_id"], registration["verdict_sha256"])
        held = open_bundle(registry.bundle_folder(str(registration["bundle_id"])))
    except (BundleError, VerdictError):
        return False
    return bool(held.sha256 == registration["sha256"])
