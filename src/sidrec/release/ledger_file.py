"""Ledgers as files of one row a line: exports, and the ledgers of the first versions.

Both are read by a bare wheel. A ledger of the first versions has its head beside it, which is checked where it is.
"""

from dataclasses import dataclass
from pathlib import Path

from sidrec import files
from sidrec.errors import LedgerError
from sidrec.release.row import GENESIS, BrokenChainError, LedgerRow, read_chain


@dataclass(frozen=True, slots=True)
class Check:
    """What `verify` found: every row in order, and bytes that a cut-off append left behind in a file, if any."""

    rows: list[LedgerRow]
    head: str
    torn: str | None = None


def read_file(path: Path) -> Check:
    """Return every row of a file after the whole chain was checked.

    Raises:
        LedgerError: there is no such file; the first broken row is named; or the chain ends before the row that the
            head beside it remembers.
    """
    if not path.is_file():
        raise LedgerError(f"no ledger at {path}", evidence=path, next_step="sidrec ledger export FILE writes one")
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    # A byte that is no UTF-8 stays visible as one that no row has.
    lines = data[:end].decode("utf-8", errors="backslashreplace").split("\n")[:-1]
    try:
        rows = read_chain(lines)
    except BrokenChainError as error:
        raise LedgerError(str(error), evidence=path, next_step="take another copy; this one is not believed") from error
    _check_head(path.with_suffix(".head"), rows)
    torn = data[end:].decode("utf-8", errors="backslashreplace") if data[end:] else None
    return Check(rows=rows, head=rows[-1].hash if rows else GENESIS, torn=torn)


def write_file(path: Path, rows: list[LedgerRow]) -> None:
    """Write rows as a file that `read_file` checks anywhere."""
    files.write_text_atomic(path, "".join(row.line + "\n" for row in rows))


def _check_head(path: Path, rows: list[LedgerRow]) -> None:
    """Refuse a chain that ends before, or beside, the row that the head remembers.

    One row more than the head knows is an append that was killed between its two writes: the row stands.
    """
    if not path.exists():
        return
    try:
        head = files.read_json(path)
        seq, digest = int(head["seq"]), str(head["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path.name} does not parse", evidence=path) from error
    if not len(rows) - 1 <= seq <= len(rows):
        raise LedgerError(
            f"the ledger has {len(rows)} rows, its head remembers row {seq}: rows were cut off or the head is old",
            evidence=path,
            next_step="restore ledger and head from a copy",
        )
    if digest != (rows[seq - 1].hash if seq else GENESIS):
        raise LedgerError(
            f"row {seq} of the ledger is broken: the head remembers {digest[:12]}…; history was rewritten",
            evidence=path,
            next_step="restore ledger and head from a copy",
        )
