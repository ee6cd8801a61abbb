"""What the ledger asks for now, and which rows asked for an experiment's phases."""

from collections.abc import Sequence

from sidrec.errors import LedgerError
from sidrec.release.ledger import Ledger
from sidrec.release.row import LedgerRow, decisions


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
