"""`sidrec drift alert`, `heartbeat`: who is told of what, once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.monitoring import drift

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
    from monitoring import findings, textfile, watch
    from monitoring.alerts import load_alert_config
    from sidrec.errors import UsageError

    chosen = folder or textfile.newest_report()
    if chosen is None:
        raise UsageError("there is no drift report yet, so there is nothing to tell", next_step="sidrec drift report")
    told = watch.of_verdict(findings.read(chosen), load_alert_config(settings), now=datetime.now(UTC))
    emit({"report": str(chosen), **told.as_dict()}, as_json, lambda: _show(told))
    return _UNSENT if told.unsent and told.open else 0


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


def _show(told: "Told") -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in told.sent:
        console.print(f"told {line}")
    for line in told.unsent:
        console.print(f"not told: {line}")
    console.print(f"{len(told.open)} incidents are open" + "".join(f"\n  {what}" for what in told.open))


def mount(root: typer.Typer) -> None:
    """Nothing of its own: its commands are part of `drift`, which is mounted."""
