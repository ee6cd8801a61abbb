"""Telling of drift as a pipeline step; an alarm fails no pipeline, a message that was not taken does."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitoring import watch
from monitoring.alerts import load_alert_config
from sidrec import files
from sidrec.errors import CheckFailedError
from sidrec.recipe import Recipe

SECTIONS = ()


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Tell of the report in `drift_report`, write what was told into `folder/told` and return it.

    Raises:
        CheckFailedError: a target has an address and did not take its message.
    """
    told = watch.of_report(inputs["drift_report"], load_alert_config(), now=datetime.now(UTC))
    files.write_json_atomic(folder / "told", told.as_dict())
    for line in (*told.sent, *told.failed, *told.absent):
        print(f"alert_drift: {line}", flush=True)
    if told.failed:
        raise CheckFailedError(
            f"{len(told.failed)} messages were not taken: {'; '.join(told.failed)}",
            evidence=folder / "told",
            next_step="is the target's address right? What is owed is told by the next run",
        )
    return {"rows": len(told.sent), **told.as_dict()}


def never_done(folder: Path) -> bool:
    """Return that the step is to run again: who is told depends on what was told before, not on its inputs."""
    return False
