"""`sidrec drift triage`: us or the world; and the two things that drift may do, when told to."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.monitoring import drift
from sidrec.cli.release import NoDeploy, actor, deploy_row
from sidrec.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from monitoring.findings import DriftVerdict
    from monitoring.triage import Cell, Triage

_COLOURS = {"ok": "green", "warn": "yellow", "alarm": "red", "insufficient": "magenta"}
_EXIT = {"ok": 0, "warn": 0, "alarm": 1, "insufficient": 3}


@drift.command("triage")
def triage_command(
    folder: Annotated[Path | None, typer.Option("--report", help="A report's folder; the newest week's.")] = None,
    stop: Annotated[
        str | None, typer.Option(help="Stop this arm: refused unless it alarms while another one is flat.")
    ] = None,
    queue_retrain: Annotated[
        bool, typer.Option("--queue-retrain", help="Ask the scheduled run for a retrain, after the cool-down.")
    ] = False,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> int:
    """Show what moved, area by area and arm by arm: exit 0 ok or warn, 1 alarm, 3 too little data."""
    from monitoring import findings, textfile
    from monitoring.triage import triage

    chosen = folder or textfile.newest_report()
    if chosen is None:
        raise UsageError("there is no drift report yet, so there is nothing to sort", next_step="sidrec drift report")
    verdict = findings.read(chosen)
    found = triage(verdict)
    stopped = None if stop is None else _stop(stop, verdict, deploy=not no_deploy)
    queued = _queue(verdict) if queue_retrain else None
    value = {"report": str(chosen), **found.as_dict(), "last_change": _last_change()}
    value |= {"stopped": stopped, "retrain": queued}
    emit(value, as_json, lambda: _show(found, value))
    return _EXIT[found.level]


def _stop(arm: str, verdict: "DriftVerdict", *, deploy: bool) -> dict[str, Any]:
    from monitoring.triage import alarming_arms
    from sidrec.release.stop import stop_arm

    if arm not in (may := alarming_arms(verdict)):
        raise CheckFailedError(
            f"arm {arm} does not alarm while another one is flat, so drift does not stop it; those that do: "
            f"{', '.join(may) or 'none'}",
            next_step="sidrec ab stop --reason '…' stops an experiment whatever drift says",
        )
    suspects = [suspect for suspect in verdict.suspects if suspect.arm == arm]
    why = f"drift of {verdict.window}: {suspects[0].sentence if suspects else verdict.sentence}"
    row = stop_arm(arm, why=why, who=actor())
    deployment = deploy_row(row) if deploy else None
    return {"arm": arm, "row": row.seq, "revision": row.revision.revision, "why": row.why, "deployment": deployment}


def _queue(verdict: "DriftVerdict") -> dict[str, Any]:
    from monitoring import retrain

    sentence = verdict.suspects[0].sentence if verdict.suspects else verdict.sentence
    request, new = retrain.ask(who=actor(), why=f"drift of {verdict.window}: {sentence}", now=datetime.now(UTC))
    return {**request.model_dump(mode="json"), "new": new}


def _last_change() -> dict[str, Any] | None:
    from sidrec.release.ledger import Ledger

    row = Ledger().live()
    if row is None:
        return None
    return {
        "revision": row.revision.revision,
        "bundle_id": row.bundle,
        "live_since": row.time.isoformat(),
        "why": row.why,
    }


def _show(found: "Triage", value: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colour = _COLOURS[found.level]
    console.print(f"[{colour}]{found.level}[/], {found.window} against {found.reference}. [bold]{found.answer}[/]")
    table = Table("", *found.columns, box=None, header_style="bold", padding=(0, 3, 0, 0))
    for area in dict.fromkeys(cell.area for cell in found.cells):
        table.add_row(area, *(_text(found.cell(area, column)) for column in found.columns))
    console.print(table)
    for number, suspect in enumerate(found.suspects, start=1):
        since = "" if suspect.since is None else f", since {suspect.since}"
        console.print(f"{number}. [{_COLOURS[suspect.level]}]{suspect.cause}[/] ({suspect.area}, {suspect.arm}{since})")
        console.print(f"   {suspect.sentence}", markup=False)
        if suspect.items:
            console.print(f"   look at {', '.join(suspect.items)}", markup=False)
    if (last := value["last_change"]) is not None:
        console.print(
            f"last change: revision {last['revision']} ({last['bundle_id']}), live since {last['live_since']}"
        )
    if (done := value["stopped"]) is not None:
        console.print(f"arm {done['arm']} is stopped: ledger row {done['row']}, revision {done['revision']}")
        console.print("next: sidrec deploy" if done["deployment"] is None else done["deployment"]["sentence"])
    if (asked := value["retrain"]) is not None:
        word = "asked for" if asked["new"] else "already asked for"
        console.print(f"a retrain is {word}; sidrec run --if-queued takes it from {asked['due_at'][:16]} on")
    for command in found.next_steps:
        console.print(f"next: {command}", markup=False)


def _text(cell: "Cell | None") -> str:
    """Return a cell as people read it: the level, its worst measure, how far, of how many rows."""
    if cell is None:
        return "[dim]–[/]"
    if cell.level is None:
        number = "" if cell.value is None else f" {cell.value:.3g}"
        return f"[dim]{cell.name}{number}\nn {cell.n:,}[/]"
    effect = "" if cell.effect is None else f" {cell.effect:.3g} {cell.unit}"
    more = f", {cell.moved} of {cell.measures} moved" if cell.moved > 1 else ""
    return f"[{_COLOURS[cell.level]}]{cell.level}[/] {cell.name}{effect}\nn {cell.n:,}{more}"


def mount(root: typer.Typer) -> None:
    """Nothing of its own: its command is part of `drift`, which is mounted."""
