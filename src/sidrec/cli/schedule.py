"""`sidrec schedule diff` and `apply`: KFP's recurring runs are those of a file in git."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sidrec.cli.console import JsonFlag, emit

schedule = typer.Typer(help="Recurring runs of Kubeflow Pipelines, as infra/schedules.yaml says.", no_args_is_help=True)

Url = Annotated[str, typer.Option(envvar="SIDREC_KFP_URL", help="KFP's API server.")]
Namespace = Annotated[str, typer.Option(envvar="SIDREC_KFP_NAMESPACE", help='"" where KFP has no users.')]
Token = Annotated[Path | None, typer.Option(envvar="SIDREC_KFP_TOKEN", help="File with a bearer token.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="Left out, infra/schedules.yaml.")]


def mount(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(schedule, name="schedule")


@schedule.command()
def diff(
    url: Url, namespace: Namespace = "", token: Token = None, file: FileOption = None, as_json: JsonFlag = False
) -> int:
    """Say what `apply` would do; exit 1 where it would do anything."""
    return _reconcile(url, namespace, token, file, as_json=as_json, carry_out=False)


@schedule.command()
def apply(
    url: Url, namespace: Namespace = "", token: Token = None, file: FileOption = None, as_json: JsonFlag = False
) -> int:
    """Make KFP's recurring runs what the file says; exit 1 where a schedule is held because its runs keep failing."""
    return _reconcile(url, namespace, token, file, as_json=as_json, carry_out=True)


def _reconcile(
    url: str, namespace: str, token: Path | None, file: Path | None, *, as_json: bool, carry_out: bool
) -> int:
    from pipelines.schedule_api import RecurringRuns
    from pipelines.schedules import DEFAULT, changes, desired, load_schedules, summary
    from sidrec.cli.run import live_champion

    read = load_schedules(file or DEFAULT)
    wanted = desired(read, champion=live_champion()[1])
    runs = RecurringRuns(url, experiment=read.experiment, namespace=namespace, token=token)
    said = changes(wanted, runs.found(), hold_after=read.hold_after_failures)
    if carry_out:
        for change in said:
            runs.carry_out(change, wanted)
    value: dict[str, Any] = {"applied": carry_out, **summary(said), "changes": [asdict(change) for change in said]}
    emit(value, as_json, lambda: _show(value))
    held = any(change.action in ("hold", "held") for change in said)
    differs = any(change.action not in ("keep", "held") for change in said)
    return 1 if held or (differs and not carry_out) else 0


def _show(value: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for change in value["changes"]:
        console.print(f"{change['action']:8} {change['name']}: {change['why']}", markup=False)
    if not value["changes"]:
        console.print("no schedule in the file, none of ours in KFP")
