"""`sidrec guard`: hold the arms that run against the champion, and stop one that hurts."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.release import deploy_row

_TOO_FEW = 3


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.command()(guard)


def guard(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look.")] = False, as_json: JsonFlag = False
) -> int:
    """Hold each arm against the champion and stop one that hurts: exit 0 fine, 1 stopped, 3 too few answers yet."""
    from sidrec import exposure
    from sidrec.release import guard as guarding
    from sidrec.release.ledger import Ledger, decisions
    from sidrec.release.policy import load_policy

    book, policy = Ledger(), load_policy()
    rows = book.rows()
    watched = guarding.watch(exposure.scan(home.exposures_dir()), rows, policy)
    hurting = next((one for one in watched if one.broken), None)
    row = None
    if hurting is not None and not dry_run:
        row = guarding.stop(hurting, decisions(rows)[-1].revision, ledger=book)
    deployment = None if row is None else deploy_row(row)
    value = {
        "arms": [asdict(one) | {"sentence": one.sentence} for one in watched],
        "stopped": None if row is None or hurting is None else hurting.arm,
        "row": None if row is None else row.seq,
        "deployment": deployment,
    }
    few = any(
        min(one.health.answers, one.champion.answers) < policy.guardrails.min_requests and not one.broken
        for one in watched
    )

    def render() -> None:
        console = Console(highlight=False, soft_wrap=True)
        if not watched:
            console.print("no arm but the champion answers anybody")
            return
        table = Table("arm", "answers", "users", "cold", "degraded", "p99 ms", "valid beams", box=None)
        for name, health in ((("champion", watched[0].champion)), *((one.arm, one.health) for one in watched)):
            cells = (
                f"{health.cold:.1%}",
                f"{health.degraded:.1%}",
                f"{health.p99_ms:.0f}",
                f"{health.valid_beams:.1%}",
            )
            table.add_row(name, f"{health.answers:,}", f"{health.users:,}", *cells)
        console.print(table)
        for one in watched:
            console.print(one.sentence, markup=False)
        if few:
            console.print(f"too few answers yet: {policy.guardrails.min_requests:,} of each arm are judged")
        if row is not None and deployment is not None:
            console.print(f"ledger row {row.seq}: stopped. {deployment['sentence']}", markup=False)

    emit(value, as_json, render)
    return 1 if hurting is not None else _TOO_FEW if few else 0
