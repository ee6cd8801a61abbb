"""`sidrec drift alert`, `heartbeat`, `prune`: who is told of what, once, and how long it is kept."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.monitoring import drift
from sidrec.process import exclusive

if TYPE_CHECKING:
    from monitoring.watch import Told

Settings = Annotated[
    Path | None, typer.Option(help="Alert settings; those of SIDREC_ALERTS, or monitoring/alerts.yaml.")
]
_UNSENT = 1


@drift.command()
def alert(
    folder: Annotated[Path | None, typer.Option("--report", help="A report's folder; the newest week's.")] = None,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> int:
    """Tell of what a drift report found: one message when an incident starts, one when it is over; exit 1 unsent."""
    from monitoring import textfile, watch
    from monitoring.alerts import load_alert_config
    from sidrec.errors import UsageError

    chosen = folder or textfile.newest_report()
    if chosen is None:
        raise UsageError("there is no drift report yet, so there is nothing to tell", next_step="sidrec drift report")
    told = watch.of_report(chosen, load_alert_config(settings), now=datetime.now(UTC))
    emit({"report": str(chosen), **told.as_dict()}, as_json, lambda: _show(told))
    return _UNSENT if told.failed or (told.absent and told.open) else 0


@drift.command()
def heartbeat(settings: Settings = None, as_json: JsonFlag = False) -> int:
    """Look whether every watched pipeline succeeded lately, for cron: exit 1, and one message, where one is silent."""
    from monitoring import heartbeat as beats
    from monitoring import watch
    from monitoring.alerts import load_alert_config

    config, now = load_alert_config(settings), datetime.now(UTC)
    told = watch.of_heartbeats(config, now=now)
    silent = beats.silent(config.heartbeats, runbook=config.runbooks, now=now)
    last = {pipeline: time.isoformat(timespec="seconds") for pipeline, time in beats.stamps().items()}
    value = {"ok": not silent, "silent": [signal.what for signal in silent], "last_success": last, **told.as_dict()}

    def render() -> None:
        console = Console(highlight=False, soft_wrap=True)
        for signal in silent:
            console.print(f"[red]{signal.what}[/]; next: {signal.command}")
        if not silent:
            console.print(", ".join(f"{pipeline} succeeded at {time}" for pipeline, time in last.items()))
        _show(told)

    emit(value, as_json, render)
    return 1 if silent else 0


@drift.command()
def prune(
    settings: Annotated[
        Path | None, typer.Option(help="Limits; those of SIDREC_RETENTION, or monitoring/retention.yaml.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Remove old reports, runs and exposures by age and size; exit 1 where what must stay is over its budget."""
    from monitoring.retention import load_retention
    from monitoring.retention import prune as prune_old

    with exclusive(home.monitoring_dir() / "lock", "the drift report"):
        done = prune_old(load_retention(settings), now=datetime.now(UTC), dry_run=dry_run)
    value = {"dry_run": dry_run, "kinds": [one.as_dict() for one in done]}
    emit(value, as_json, lambda: print("\n".join(one.sentence for one in done)))
    return 1 if any(one.over_budget for one in done) else 0


def _show(told: "Told") -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in told.sent:
        console.print(f"told {line}")
    for line in (*told.failed, *told.absent):
        console.print(f"not told: {line}")
    number = "1 incident is" if len(told.open) == 1 else f"{len(told.open)} incidents are"
    console.print(f"{number} open" + "".join(f"\n  {what}" for what in told.open))


def mount(root: typer.Typer) -> None:
    """Nothing of its own: its commands are part of `drift`, which is mounted."""
