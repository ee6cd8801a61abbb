"""Retention as a pipeline step; a budget that cannot be kept is said, and fails nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitoring.retention import load_retention, prune
from sidrec import files, home
from sidrec.process import exclusive
from sidrec.recipe import Recipe

SECTIONS = ()
_WAIT_S = 60.0


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Remove what is too old or too much, write what went into `folder/pruned` and return it."""
    with exclusive(home.monitoring_dir() / "lock", "the drift report", wait_s=_WAIT_S):
        done = prune(load_retention(), now=datetime.now(UTC))
    for one in done:
        print(f"prune_monitoring: {one.sentence}", flush=True)
    value = {"kinds": [one.as_dict() for one in done]}
    files.write_json_atomic(folder / "pruned", value)
    return {"rows": sum(len(one.gone) for one in done), **value}


def never_done(folder: Path) -> bool:
    """Return that the step is to run again: what is too old changes by the day."""
    return False
