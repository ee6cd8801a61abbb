"""The drift report as a pipeline step; it reports, and never stops a pipeline or deploys."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring import findings, report
from sidrec import files, home
from sidrec.process import exclusive
from sidrec.recipe import Recipe

_WAIT_S = 600.0
SECTIONS = ("as_of", "gate_days", "seed", "codebook", "monitoring")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write the report of the newest week, its documents also into `folder/drift_report`, and return its verdict.

    The page stands beside those that `sidrec drift report` makes, so that every reader finds one place.
    """
    sources = report.Sources(
        exposures=inputs["exposures"],
        outcomes=inputs["outcomes"],
        baskets=inputs["baskets"],
        bundle=inputs["bundle"],
        others=tuple(folder for name, folder in sorted(inputs.items()) if name.startswith("other_bundle_")),
    )
    target = folder / "drift_report"
    with exclusive(home.monitoring_dir() / "lock", "the drift report", wait_s=_WAIT_S):
        drift = report.build(sources, recipe)
        if drift is None:
            return {"skipped": report.no_data(sources, target)["sentence"]}
        page = report.report_dir(drift)
        verdict = report.save(drift, recipe, page, report.workspace_dir())
        target.mkdir(parents=True, exist_ok=True)
        for document in page.glob("*.json"):
            shutil.copy2(document, target)
    print(f"report_drift: {verdict['sentence']}", flush=True)
    return {"rows": verdict["n"]["requests"], "level": verdict["level"], "sentence": verdict["sentence"]}


def still_in_workspace(folder: Path) -> bool:
    """Return whether the run that this step added to the workspace, and its page, are still there."""
    verdict = files.read_json(folder / "drift_report" / report.VERDICT)
    runs = report.workspace_dir().glob(f"*/snapshots/{verdict.get('run_id')}.json")
    if verdict.get("run_id") is None:
        return True
    drift = findings.read(folder / "drift_report")
    return any(runs) and (home.monitoring_dir() / "reports" / f"{drift.first_day}-{drift.reference}").exists()
