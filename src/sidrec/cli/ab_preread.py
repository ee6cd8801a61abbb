"""`sidrec ab shadow`, `explore`, `preread`: what another bundle answers, and would earn, before anybody sees it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidrec import home
from sidrec.cli.ab_run import finish
from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.release import NoDeploy, Reason, actor
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from sidrec.experiment.preread import Preread, Worth

Folder = Annotated[Path | None, typer.Option(help="Folder of segments; this installation's.")]


def mount(ab: typer.Typer) -> None:
    """Add the commands of this module to `sidrec ab`."""
    ab.command()(shadow)
    ab.command()(explore)
    ab.command()(preread)


def shadow(
    exposures: Folder = None,
    shadow: Folder = None,
    bundle: Annotated[str | None, typer.Option(help="Whose answers in the shadow's log; the newest.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold a shadow's answers against those that were sent to the same requests."""
    from monitoring.shadow import beside

    found = beside(exposures or home.exposures_dir(), shadow or home.shadow_dir(), bundle=bundle)

    def render() -> None:
        print(f"{found['bundle_id']} behind {found['requests']:,} answers that were sent")
        print(f"of the items sent it has {found['overlap']:.1%} too; the same best item {found['same_first']:.1%}")
        for side in ("sent", "shadow"):
            one = found[side]
            print(
                f"{side}: {one['cold_share']:.1%} cold, p50 {one['latency_p50_ms']:.1f} ms, "
                f"p99 {one['latency_p99_ms']:.1f} ms"
            )

    emit(found, as_json, render)


def explore(
    reason: Reason,
    share: Annotated[float, typer.Option(min=0, max=0.5, help="Share of users with drawn answers; 0 ends it.")],
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Of the log-probabilities: the higher, the more even the draw.")
    ] = 1.0,
    candidates: Annotated[int, typer.Option(min=2, max=200, help="Best items that a draw chooses from.")] = 50,
    no_deploy: NoDeploy = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a small share of users see drawn answers, with the chance of every item in the log."""
    from sidrec.decoding.exploration import Exploration
    from sidrec.release import exploring

    wanted = None if share == 0 else Exploration(share=share, temperature=temperature, candidates=candidates)
    finish(exploring.explore(wanted, why=reason, who=actor()), deploy=not no_deploy, as_json=as_json)


def preread(
    exposures: Folder = None,
    shadow: Folder = None,
    outcomes: Folder = None,
    bundle: Annotated[str | None, typer.Option(help="Whose answers in the shadow's log; the newest.")] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Read as of this time, UTC.")
    ] = None,
    min_effective: Annotated[int, typer.Option(min=2, help="Users of equal weight it needs to tell anything.")] = 200,
    min_reached: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the other bundle's items that must be drawable.")
    ] = 0.8,
    as_json: JsonFlag = False,
) -> int:
    """Say what the shadow's answers would have earned, from drawn ones: exit 0 better, 1 worse, 3 cannot tell."""
    from monitoring.preread import gather
    from sidrec.experiment.preread import preread as read

    draws = gather(
        exposures or home.exposures_dir(),
        shadow or home.shadow_dir(),
        outcomes or home.outcomes_dir(),
        bundle=bundle,
        until=None if until is None else int(until.replace(tzinfo=UTC).timestamp()),
    )
    try:
        found = read(draws.drawn, draws.answers, min_effective=min_effective, min_reached=min_reached)
    except UsageError as error:
        raise UsageError(error.message, next_step="the shadow must run while users explore") from error
    value = {
        "simulation": draws.simulated,
        "champion": draws.champion,
        "bundle_id": draws.bundle_id,
        **found.model_dump(mode="json"),
    }
    emit(value, as_json, lambda: _show(found, draws.bundle_id, simulated=draws.simulated))
    return {"better": 0, "worse": 1, "undecided": 3, "cannot tell": 3}[found.verdict]


def _show(found: "Preread", bundle_id: str, *, simulated: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from sidrec.experiment.page import SIMULATED

    console = Console(highlight=False, soft_wrap=True)
    if simulated:
        console.print(f"[yellow]{SIMULATED}[/]")
    console.print(f"{found.requests:,} drawn answers of {found.users:,} users; the other bundle is {bundle_id}")
    table = Table("answers of", "taken per answer", "one look", "could be drawn", "effective users")
    for name, one in (("champion", found.champion), ("other bundle", found.challenger)):
        table.add_row(name, *_cells(one))
    console.print(table)
    console.print(f"[bold]{found.sentence}[/]", markup=True)


def _cells(one: "Worth") -> tuple[str, str, str, str]:
    low, high = one.interval
    return f"{one.value:.4f}", f"{low:.4f} … {high:.4f}", f"{one.reached:.0%}", f"{one.effective_users:,.0f}"
