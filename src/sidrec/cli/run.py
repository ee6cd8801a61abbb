"""`sidrec run`: one slot of a pipeline, from raw events to a registered candidate."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sidrec import files
from sidrec.cli.console import JsonFlag, emit
from sidrec.clock import utc_now_iso
from sidrec.errors import CheckFailedError, InconclusiveError, UsageError
from sidrec.packages import require_packages
from sidrec.process import exclusive
from sidrec.recipe import Recipe, load_recipe
from sidrec.steps import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from pipelines.slot import Slot

DEFAULT_RECIPE = Path("pipelines/recipes/s2gr_retail.yaml")
PIPELINES = ("training", "codebook_refresh")
_POLL_S = 0.2
# Torch's threads must sleep while they wait: spinning ones take the cores that the work needs on a busy machine.
_CHILD_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def run(
    recipe: Annotated[Path, typer.Option(help="The recipe, a flat YAML file.")] = DEFAULT_RECIPE,
    pipeline: Annotated[
        str, typer.Option(help="training, or codebook_refresh: carry the live codebook and model on.")
    ] = "training",
    broken: Annotated[
        str, typer.Option("--break", help="See a gate refuse: codebook-collapse, collisions or churn.")
    ] = "",
    if_queued: Annotated[
        bool, typer.Option("--if-queued", help="Only if drift asked for a retrain and its cool-down is over.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a pipeline for the slot of a recipe, the data and the code as they are now."""
    from pipelines.slot import slot_of

    if if_queued and not _asked(as_json):
        return
    if pipeline not in PIPELINES:
        raise UsageError(f"no pipeline is called {pipeline!r}", next_step=f"one of {', '.join(PIPELINES)}")
    text, parsed = load_recipe(recipe)
    if parsed.evaluation.protocol != "next_basket_v1":
        raise UsageError(
            f"a run is gated on next_basket_v1, and {recipe} is judged by {parsed.evaluation.protocol}",
            next_step=f"sidrec evaluate --recipe {recipe}, or set evaluation.protocol",
        )
    # Steps that need them come minutes later.
    require_packages(parsed)
    live, champion = live_champion()
    _check_fault(broken, live)
    if broken == "churn":  # a model that is trained from scratch would lose nothing
        pipeline = "codebook_refresh"
    if pipeline == "codebook_refresh" and not live:
        raise UsageError(
            "nothing is live, so there is no codebook to carry on", next_step="sidrec run, then sidrec promote --first"
        )
    if shutil.which("tritonserver") is None and not (Path(sys.prefix) / "triton").exists():
        raise UsageError("this environment has no Triton server, which check_serving needs", next_step="make setup")
    slot = slot_of(parsed, pipeline=pipeline, parent=live if pipeline != "training" else "", broken=broken)
    with exclusive(slot.folder / "lock", f"slot {slot.slot_id}"):
        result = slot.result()
        already = result is not None and result["result"] in ("ok", "inconclusive")
        if not already:
            if not as_json:
                _say_outlook(parsed)
            result = _run_slot(slot, text, pipeline, champion, broken, quiet=as_json)
    assert result is not None
    if result["result"] != "failed" or not as_json:
        emit({**result, "already_done": already}, as_json, lambda: _show(result, already))
    if result["result"] != "failed":
        _succeeded(pipeline, if_queued)
    _raise_unless_ok(result, as_json)


def _asked(as_json: bool) -> bool:
    """Return whether a retrain that drift asked for is due, after saying so."""
    from monitoring import retrain

    now, waiting = datetime.now(UTC), retrain.read().waiting
    request = retrain.due(now=now)
    if request is not None:
        if not as_json:
            print(f"{request.who} asked for a retrain at {request.asked_at:%Y-%m-%d %H:%M} UTC: {request.why}")
        return True
    waits = None if waiting is None else waiting.due_at.isoformat(timespec="minutes")
    said = "no retrain is asked for" if waits is None else f"the retrain that is asked for waits until {waits}"
    emit({"result": "not queued", "due_at": waits}, as_json, lambda: print(f"{said}; nothing to do"))
    return False


def _succeeded(pipeline: str, if_queued: bool) -> None:
    """Leave the stamp that the dead man's switch looks at, and close the request that was carried out."""
    from monitoring import heartbeat, retrain

    now = datetime.now(UTC)
    heartbeat.beat(pipeline, now=now)
    if if_queued:
        retrain.taken(now=now)


def _run_slot(
    slot: "Slot", recipe_text: str, pipeline: str, champion: str, broken: str, *, quiet: bool
) -> dict[str, Any]:
    """Run the pipeline in a process of its own and return how it ended."""
    slot.result_path.unlink(missing_ok=True)
    (slot.folder / "steps.jsonl").unlink(missing_ok=True)
    files.write_text_atomic(slot.folder / "recipe.yaml", recipe_text)
    if broken:
        files.write_json_atomic(slot.folder / "broken.json", {"break": broken})
    files.write_json_atomic(slot.folder / "started.json", {"slot": slot.slot_id, "started_at": utc_now_iso()})
    started = time.monotonic()
    with slot.log_path.open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "pipelines.local", str(slot.folder)),
                *("--pipeline", pipeline, "--champion", champion),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_CHILD_ENVIRONMENT, RUN_DIR_VARIABLE: str(slot.folder)},
        )
        _follow(slot, child, quiet=quiet)
    result = _result(slot, child.wait(), round(time.monotonic() - started, 1))
    files.write_json_atomic(slot.result_path, result)
    return result


def _follow(slot: "Slot", child: subprocess.Popen[bytes], *, quiet: bool) -> None:
    """Show each step as it ends, and what long steps say on the way, until the child is done."""
    console = Console(stderr=True)
    shown = 0
    lines = _tail(slot.log_path)
    said_by_step = _step_line()
    with console.status("starting") as status:
        while True:
            ended = child.poll() is not None
            for line in lines:
                if line is None:
                    break
                said = said_by_step.match(line)
                if said and not quiet:
                    console.print(f"  {said[1]}", highlight=False, markup=False)
            steps = slot.steps()
            for step in steps[shown:]:
                if not quiet:
                    console.print(f"[bold]{step['step']}[/] {step['result']} in {step['seconds']:.1f} s")
            shown = len(steps)
            status.update(f"step {shown + 1}")
            if ended:
                return
            time.sleep(_POLL_S)


def _step_line() -> re.Pattern[str]:
    """Return what matches a step's own words: they start with its name; the rest of the log is the runner's."""
    import components

    names = sorted(path.name for folder in components.__path__ for path in Path(folder).iterdir() if path.is_dir())
    return re.compile(rf"^\s*((?:{'|'.join(names)}): .*)$")


def _tail(path: Path) -> Iterator[str | None]:
    """Yield the file's lines as they come; None when there is no more for now."""
    with path.open(encoding="utf-8", errors="replace") as file:
        held = ""
        while True:
            chunk = file.readline()
            if not chunk:
                yield None
                continue
            held += chunk
            if held.endswith("\n"):
                yield held.rstrip("\n")
                held = ""


def _result(slot: "Slot", exit_code: int, seconds: float) -> dict[str, Any]:
    steps = slot.steps()
    failed = next((step for step in steps if step["result"] == "failed"), None)
    by_name = {step["step"]: step for step in steps}
    result: dict[str, Any] = {
        "slot": slot.slot_id,
        "seconds": seconds,
        "finished_at": utc_now_iso(),
        "steps": steps,
        "log": str(slot.log_path),
    }
    if failed is not None:
        return result | {
            "result": "failed",
            "step": failed["step"],
            "reason": failed["message"],
            "evidence": failed["evidence"],
            "next": failed["next"],
        }
    if exit_code != 0:
        last = slot.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return result | {
            "result": "failed",
            "step": None,
            "reason": f"the pipeline stopped with exit status {exit_code}: {''.join(last)[:200]}",
            "evidence": str(slot.log_path),
            "next": f"read {slot.log_path}, then run again: finished steps are reused",
        }
    verdict_path = Path(by_name["sign_verdict"]["folder"]) / "verdict"
    verdict = files.read_json(verdict_path)["verdict"]
    evaluation = files.read_json(Path(by_name["evaluate"]["folder"]) / "evaluation" / "report.json")
    return result | {
        "result": "inconclusive" if verdict["result"] == "inconclusive" else "ok",
        "bundle_id": verdict["bundle_id"],
        "sentence": verdict["sentence"],
        "metrics": evaluation["metrics"],
        "distances": evaluation["distances"],
        "bundle": str(Path(by_name["package_bundle"]["folder"]) / "bundle"),
        "baskets": str(Path(by_name["build_sequences"]["folder"]) / "baskets"),
    }


def live_champion() -> tuple[str, str]:
    """Return the id and the folder of the live bundle, twice "" before the first promotion."""
    from serving import registry
    from sidrec.release.ledger import Ledger

    desired = Ledger().desired()
    if desired is None:
        return "", ""
    return desired.bundle_ids[0], str(registry.bundle_folder(desired.bundle_ids[0]))


def _check_fault(broken: str, live: str) -> None:
    """Refuse a fault that does not exist, or that nothing live can show."""
    from components.train_codebook.sabotage import FAULTS

    if broken and broken not in FAULTS:
        raise UsageError(f"no fault is called {broken!r}", next_step=f"one of {', '.join(FAULTS)}")
    if broken == "churn" and not live:
        raise UsageError("nothing is live, so no semantic ID can move", next_step="sidrec promote --first")


def _say_outlook(recipe: Recipe) -> None:
    """Say before training whether the rows of a gate window can decide non-inferiority to the champion."""
    from serving import registry
    from sidrec.evaluation.power import before_training
    from sidrec.release.ledger import Ledger
    from sidrec.release.verdict import read_verdict

    desired = Ledger().desired()
    if desired is None:
        return
    verdict = read_verdict(registry.verdict_path(desired.bundle_ids[0]))
    for outlook in before_training(verdict.gates, verdict.metrics, recipe.gates.non_inferiority):
        Console(stderr=True).print(f"  quality gate: {outlook.sentence}", highlight=False, markup=False)


def _show(result: dict[str, Any], already: bool) -> None:
    console = Console()
    if already:
        console.print(f"slot {result['slot']} is already done; nothing to do")
    table = Table("step", "seconds", "rows", "result", box=None, header_style="bold")
    for step in result["steps"]:
        rows = step.get("summary", {}).get("rows")
        why = step.get("summary", {}).get("skipped")
        table.add_row(
            step["step"],
            f"{step['seconds']:.1f}",
            "" if rows is None else f"{rows:,}",
            step["result"] + (f" ({why})" if why else ""),
        )
    console.print(table)
    if result["result"] == "failed":
        return
    console.print(f"\n{result['sentence']}\nbundle {result['bundle_id']}, {result['seconds']:.0f} s\n")
    for kind, distance in result["distances"].items():
        low, high = distance["interval"]
        console.print(
            f"{kind}: NDCG@10 {distance['candidate']:.4f}, {distance['floor']} {distance['reference']:.4f}, "
            f"distance {distance['mean']:+.4f} [{low:+.4f}, {high:+.4f}]",
            highlight=False,
            markup=False,
        )
    for line in example_lines(Path(result["bundle"]), Path(result["baskets"])):
        console.print(line, highlight=False, markup=False)
    console.print(
        "\nnext:\n"
        f"  sidrec bundle show {result['bundle_id']}\n"
        f"  sidrec promote {result['bundle_id']} --reason '…'\n"
        "  sidrec serve"
    )


def example_lines(bundle: Path, baskets: Path) -> list[str]:
    """Return three recommended titles for a real customer beside their last purchases."""
    import polars as pl

    from sidrec.recommender import Recommender, Request

    recommender = Recommender.open(bundle)
    fitted = pl.read_parquet(baskets).filter(pl.col("time") < recommender.as_of_time)
    counts = fitted.group_by("user_id").agg(pl.len().alias("baskets"), pl.col("time").max().alias("last"))
    user = counts.filter(pl.col("baskets") >= 3).sort("last", "user_id", descending=[True, False])["user_id"][0]
    own = fitted.filter(pl.col("user_id") == user).sort("time")
    items = [item for basket in own["item_ids"] for item in basket]
    times = [time for time, basket in zip(own["time"], own["item_ids"], strict=True) for _ in basket]
    request = Request(item_ids=tuple(items), times=tuple(times), k=3, exclude_seen=True, now=recommender.as_of_time)
    [answer] = recommender.recommend([request])
    title = dict(zip(recommender.catalog.item_ids, recommender.catalog.titles, strict=True))
    bought = [title.get(item, item) for item in items[-3:]]
    offered = [title[item] for item in answer.item_ids]
    return [f"customer {user} last bought: {'; '.join(bought)}", f"new for them: {'; '.join(offered)}"]


def _raise_unless_ok(result: dict[str, Any], as_json: bool) -> None:
    if result["result"] == "failed":
        step = f"{result['step']}: " if result["step"] else ""
        raise CheckFailedError(f"{step}{result['reason']}", evidence=result["evidence"], next_step=result["next"])
    if result["result"] == "inconclusive":
        if as_json:  # the result is the one JSON object
            raise typer.Exit(InconclusiveError.exit_code)
        raise InconclusiveError(
            result["sentence"],
            evidence=result["log"],
            next_step=f"sidrec promote {result['bundle_id']} --accept-inconclusive --second-approver NAME --reason '…'",
        )


def json_error(error: dict[str, Any]) -> str:
    """Return an error's JSON text, as `--json` prints it."""
    return json.dumps(error, indent=2)
