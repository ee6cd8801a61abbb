"""What the ledger asks for now, and which rows asked for an experiment's phases."""

from collections.abc import Sequence

from sidrec.errors import LedgerError
from sidrec.release.ledger import Ledger, LedgerRow


def decisions(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Return the rows that asked for a revision, oldest first."""
    return [row for row in rows if row.action in ("promote", "ramp", "stop", "rollback")]


def phases(rows: Sequence[LedgerRow], experiment: str) -> list[LedgerRow]:
    """Return the rows that asked for a revision of the experiment, oldest first: each is a phase of constant shares."""
    return [row for row in decisions(rows) if row.revision.experiment == experiment]


def standing(book: Ledger, rows: Sequence[LedgerRow]) -> LedgerRow:
    """Return the row whose revision servers ought to serve.

    Raises:
        LedgerError: nothing was promoted yet.
    """
    asked = decisions(rows)
    if not asked:
        raise LedgerError(
            "nothing was promoted yet, so there is no champion to compare with",
            evidence=book.path,
            next_step="sidrec promote --first --reason '…'",
        )
    return asked[-1]


def next_revision(rows: Sequence[LedgerRow]) -> int:
    """Return a number that no row's revision has."""
    return max((row.revision.revision for row in rows), default=0) + 1
