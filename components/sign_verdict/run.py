"""Join the codebook, quality and serving gates into one signed verdict on the bundle."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sidrec import files
from sidrec.bundle import Bundle, open_bundle
from sidrec.errors import VerdictError
from sidrec.evaluation.gates import GateResult
from sidrec.recipe import Recipe, recipe_hash
from sidrec.release import provenance
from sidrec.release.verdict import GateName, make_verdict, read_verdict, sign_verdict

SECTIONS = ("gates",)


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/verdict`; it is written whatever it says, and `register` refuses one that says fail."""
    bundle = open_bundle(inputs["bundle"])
    report_path = inputs["evaluation"] / "report.json"
    report = _read(report_path)
    sources: list[tuple[GateName, Path]] = [
        ("codebook", bundle.folder / "codebook" / "health.json"),
        ("quality", report_path),
        ("serving", inputs["serving_check"]),
    ]
    gates = [gate for name, path in sources for gate in _gates(name, path, bundle)]
    verdict = make_verdict(
        bundle,
        gates,
        metrics=_metrics(report),
        champion=report.get("champion"),
        fresh_days=recipe.gates.fresh_days,
        recipe_sha256=recipe_hash(recipe),
        git_sha=provenance.git_sha(),
        versions=provenance.versions(),
    )
    sign_verdict(verdict, folder / "verdict")
    return {
        "bundle_id": bundle.bundle_id,
        "verdict": verdict.result,
        "sentence": verdict.sentence,
        "gates": {f"{gate.gate}/{gate.name}": gate.result for gate in gates},
    }


def still_holds(folder: Path) -> bool:
    """Return whether an earlier verdict is still fresh and signed by the key that is trusted today."""
    try:
        return read_verdict(folder / "verdict").expires_at > datetime.now(UTC)
    except VerdictError:
        return False


def _gates(gate: GateName, path: Path, bundle: Bundle) -> list[GateResult]:
    """Return one gate's answers; none where its file or its list is absent, which makes the verdict a fail."""
    value = _read(path)
    about = value.get("bundle_id", bundle.bundle_id)
    if about != bundle.bundle_id:
        raise VerdictError(f"{path.name} is about {about}, the bundle is {bundle.bundle_id}", evidence=path)
    try:
        results = [GateResult.model_validate(entry) for entry in value.get("gates", [])]
    except ValidationError as error:
        raise VerdictError(f"{path.name} holds no gate results: {error}", evidence=path) from error
    strange = [result.name for result in results if result.gate != gate]
    if strange:
        raise VerdictError(f"{path.name} answers for {gate}, not for {', '.join(strange)}", evidence=path)
    return results


def _metrics(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the bundle's own metrics that are finite numbers, by row set."""
    return {
        rows: {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for rows, values in report.get("metrics", {}).items()
    }


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = files.read_json(path)
    except ValueError as error:
        raise VerdictError(f"{path.name} does not parse: {error}", evidence=path) from error
    if not isinstance(value, dict):
        raise VerdictError(f"{path.name} is no JSON object", evidence=path)
    return value
