"""One document a run of a cluster: how it ended, in which step and why; under SIDREC_HOME, and one line in the log.

One that succeeded leaves its stamp for the dead man's switch too, as a run on a laptop does.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitoring import heartbeat
from sidrec import files, home
from sidrec.clock import utc_now_iso
from sidrec.recipe import parse_recipe

SUCCEEDED = "SUCCEEDED"


def run(*, pipeline: str, recipe: str, name: str, state: str, task: str, code: int | None, message: str | None) -> Path:
    """Return the document's file: `runs/cluster/<run>.json`.

    Args:
        name: of the run, as KFP calls it.
        state: SUCCEEDED, FAILED or CANCELLED.
        task: group of tasks that ended so.
    """
    ended: dict[str, Any] = {
        "schema_version": 1,
        "pipeline": pipeline,
        "run": name,
        "state": state,
        "ok": state == SUCCEEDED,
        "task": task,
        "code": code,
        "reason": message,
        "finished_at": utc_now_iso(),
        **_of_recipe(recipe),
    }
    path = home.runs_dir() / "cluster" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.json"
    files.write_json_atomic(path, ended)
    if ended["ok"]:
        heartbeat.beat(pipeline, now=datetime.now(UTC))
    print(json.dumps({"event": "run_ended", **ended}), flush=True)
    return path


def _of_recipe(text: str) -> dict[str, Any]:
    """Return the recipe's name and date; a run that failed because it does not load still ends with a document."""
    try:
        parsed = parse_recipe(text)
    except Exception as error:  # whatever is wrong with it is the run's failure, not this document's
        return {"recipe": None, "as_of": None, "recipe_error": str(error)}
    return {"recipe": parsed.name, "as_of": str(parsed.as_of)}
