"""`sidrec ledger`: who asked for what, when and why, what was live, and whether all of it still is what it was."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from sidrec.release.ledger_file import Check
    from sidrec.release.row import LedgerRow

ledger_app = typer.Typer(help="The ledger: who asked for what, when, why; what was live.", no_args_is_help=True)

FileOption = Annotated[Path | None, typer.Option("--file", help="An export; left out, this installation's ledger.")]


def mount(root: typer.Typer) -> None:
    """Add the commands of this module to the root."""
    root.add_typer(ledger_app, name="ledger")


@ledger_app.command("show")
def show_ledger(
    last: Annotated[int, typer.Option(min=1, help="Rows on the screen; --json has all.")] = 20,
    file: FileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show who asked for what, and what went live."""
    check, where = _read(file)
    value = {"path": where, "head": check.head, "rows": [row.model_dump(mode="json") for row in check.rows]}

    def render() -> None:
        console = Console(highlight=False)
        if not check.rows:
            console.print("the ledger is empty; next: sidrec promote --first --reason '…'")
            return
        table = Table("row", Column("time (UTC)", no_wrap=True), "action", "revision", box=None, header_style="bold")
        table.add_column("bundle", no_wrap=True)
        for title in ("who", "why"):
            table.add_column(title, overflow="fold")
        for row in check.rows[-last:]:
            table.add_row(
                str(row.seq),
                f"{row.time:%Y-%m-%d %H:%M:%S}",
                _action(row),
                str(row.revision.revision),
                row.bundle,
                row.who + (f" + {row.second_approver}" if row.second_approver else ""),
                row.why,
            )
        console.print(table)

    emit(value, as_json, render)


@ledger_app.command("verify")
def verify_ledger(
    head: Annotated[str, typer.Option(help="A head noted earlier, elsewhere; it must still be in the chain.")] = "",
    file: FileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check the whole hash chain and, of this installation, every revision file, bundle and verdict that it serves."""
    check, where = _read(file)
    if head and not any(row.hash.startswith(head) for row in check.rows):
        raise LedgerError(f"no row has the hash {head}: history was rewritten since it was noted", evidence=where)
    revisions = _served_revisions(check.rows) if file is None else []
    value = {"rows": len(check.rows), "head": check.head, "torn": check.torn, "revisions": revisions}

    def render() -> None:
        print(f"{len(check.rows)} rows, every hash holds; head {check.head}")
        if revisions:
            shown = ", ".join(str(number) for number in revisions)
            print(f"revisions {shown} in Triton's repository are as the ledger has them, bundles and verdicts too")
        if check.torn is not None:
            print(f"an append was cut off after the last row ({len(check.torn)} characters); it never happened")

    emit(value, as_json, render)


@ledger_app.command("live")
def live_at(
    at: Annotated[str, typer.Option(help="ISO time; without an offset it is UTC. Default: now.")] = "",
    file: FileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which revision was being served at a time."""
    moment = _moment(at) if at else datetime.now(UTC)
    rows = [row for row in _read(file)[0].rows if row.action == "live" and row.time <= moment]
    row = rows[-1] if rows else None
    value = {"at": moment.isoformat(), "live": None if row is None else row.model_dump(mode="json")}

    def render() -> None:
        if row is None:
            print(f"nothing was live at {moment:%Y-%m-%d %H:%M:%S} UTC")
            return
        arms = ", ".join(f"{arm.name} {arm.bundle.bundle_id} {arm.share:.0%}" for arm in row.revision.arms)
        shadow = f", shadow {row.revision.shadow.bundle_id}" if row.revision.shadow else ""
        print(f"revision {row.revision.revision} ({arms}{shadow}), live since {row.time:%Y-%m-%d %H:%M:%S} UTC")

    emit(value, as_json, render)


@ledger_app.command("export")
def export_ledger(
    target: Annotated[Path, typer.Argument(help="File to write, one row a line.")],
    as_json: JsonFlag = False,
) -> None:
    """Write every row to a file that `sidrec ledger verify --file` checks on any machine."""
    from sidrec.release.ledger_file import write_file

    check, _ = _read(None)
    write_file(target, check.rows)
    value = {"path": str(target), "rows": len(check.rows), "head": check.head}
    emit(value, as_json, lambda: print(f"{len(check.rows)} rows in {target}; note the head elsewhere: {check.head}"))


@ledger_app.command("import")
def import_ledger(
    source: Annotated[Path, typer.Argument(help="An export.")],
    as_json: JsonFlag = False,
) -> None:
    """Move a ledger: take an export's rows, as they are, into this empty one."""
    from sidrec.release.ledger import Ledger
    from sidrec.release.ledger_file import read_file

    book, check = Ledger(), read_file(source)
    book.take(check.rows)
    value = {"path": str(book.path), "rows": len(check.rows), "head": check.head}
    emit(value, as_json, lambda: print(f"{len(check.rows)} rows are now in {book.path}; head {check.head}"))


def _read(file: Path | None) -> "tuple[Check, str]":
    from sidrec.release.ledger import Ledger
    from sidrec.release.ledger_file import read_file

    if file is not None:
        return read_file(file), str(file)
    book = Ledger()
    return book.verify(), str(book.path)


def _served_revisions(rows: "list[LedgerRow]") -> list[int]:
    """Return the revisions in Triton's repository, each checked; none where the application is not installed."""
    try:
        from serving.audit import audit
    except ModuleNotFoundError:
        return []
    return list(audit(rows))


def _action(row: "LedgerRow") -> str:
    stage = f" {row.stage}" if row.stage else ""
    asked = " (asked)" if row.pending_until else ""
    return f"{row.action}{stage}{asked}"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no ISO time", next_step="--at 2011-01-31T12:00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
