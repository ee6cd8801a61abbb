"""The drift report as a pipeline step; it reports, and never stops a pipeline or deploys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring import report
from sidrec import files
from sidrec.recipe import Recipe

SECTIONS = ("as_of", "gate_days", "seed", "codebook", "monitoring")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write the report of the newest week into `folder/drift_report` and return its verdict."""
    sources = report.Sources(
        exposures=inputs["exposures"],
        outcomes=inputs["outcomes"],
        baskets=inputs["baskets"],
        bundle=inputs["bundle"],
    )
    target = folder / "drift_report"
    drift = report.build(sources, recipe)
    if drift is None:
        return {"skipped": report.no_data(sources, target)["sentence"]}
    verdict = report.save(drift, recipe, target, report.workspace_dir())
    print(f"report_drift: {verdict['sentence']}", flush=True)
    return {"rows": verdict["n"]["requests"], "level": verdict["level"], "sentence": verdict["sentence"]}


def still_in_workspace(folder: Path) -> bool:
    """Return whether the run that this step added to the workspace is still there."""
    verdict = files.read_json(folder / "drift_report" / report.VERDICT)
    runs = report.workspace_dir().glob(f"*/snapshots/{verdict.get('run_id')}.json")
    return verdict.get("run_id") is None or any(runs)
