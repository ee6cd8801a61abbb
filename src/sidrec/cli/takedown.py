"""`sidrec takedown`: items that no answer may hold, from the next request on."""

from typing import TYPE_CHECKING, Annotated

import typer

from sidrec import home
from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.release import Reason, actor
from sidrec.errors import LedgerError, SidrecError, UsageError

if TYPE_CHECKING:
    from sidrec.release.row import LedgerRow

takedown_app = typer.Typer(help="Items that no answer may hold, whatever serves.", no_args_is_help=True)

Items = Annotated[list[str], typer.Argument(help="Item ids.")]


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(takedown_app, name="takedown")


@takedown_app.command("list")
def list_items(as_json: JsonFlag = False) -> None:
    """List the items that are taken down."""
    from serving.triton.takedown import read_takedown

    items = sorted(read_takedown(home.takedown_path()))
    emit({"items": items}, as_json, lambda: print("\n".join(items) if items else "no item is taken down"))


@takedown_app.command("add")
def add_items(items: Items, reason: Reason, as_json: JsonFlag = False) -> None:
    """Take items out of every answer, at once, and write down who did so and why."""
    _change(frozenset(items), frozenset(), reason, as_json)


@takedown_app.command("remove")
def remove_items(items: Items, reason: Reason, as_json: JsonFlag = False) -> None:
    """Let items be answered again."""
    _change(frozenset(), frozenset(items), reason, as_json)


def _change(more: frozenset[str], fewer: frozenset[str], reason: str, as_json: bool) -> None:
    from serving.triton.takedown import read_takedown, write_takedown
    from sidrec.release.authors import author_and_reason

    who, why = author_and_reason(actor(), reason)
    if strange := sorted(item for item in more if not item.strip() or "\n" in item or item.startswith("#")):
        raise UsageError(f"{strange[0]!r} is no item id")
    before = read_takedown(home.takedown_path())
    after = (before | more) - fewer
    # The harm ends first: the servers read this file, and the ledger may be out of reach.
    write_takedown(home.takedown_path(), sorted(after))
    try:
        row = _record(tuple(sorted(after)), who, why)
    except SidrecError as error:
        raise LedgerError(
            f"the list is in force ({len(after)} items), but the ledger does not say so: {error.message}",
            evidence=error.evidence,
            next_step="the same command again, once the ledger is back",
        ) from error
    value = {"items": sorted(after), "row": row.seq}
    said = f"ledger row {row.seq}: {len(after)} items are in no answer from the next request on"
    emit(value, as_json, lambda: print(said))


def _record(items: tuple[str, ...], who: str, why: str) -> "LedgerRow":
    from sidrec.release.ledger import Ledger, decisions

    with Ledger().writing() as writer:
        decided = decisions(writer.rows)
        if not decided:
            raise LedgerError("nothing was promoted yet, so no answer holds anything")
        served = decided[-1]
        return writer.append(
            "takedown", who=who, why=why, revision=served.revision, verdicts=served.verdicts, items=items
        )
