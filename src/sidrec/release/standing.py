"""What the ledger asks for now, and what every move that follows needs: an author, a reason, the next number."""

from collections.abc import Sequence

from sidrec.errors import LedgerError, UsageError
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


def next_number(rows: Sequence[LedgerRow]) -> int:
    """Return a revision's number that was never used."""
    return max((row.revision.revision for row in rows), default=0) + 1


def author_and_reason(who: str, why: str) -> tuple[str, str]:
    """Return both without the space around them.

    Raises:
        UsageError: one of them is empty.
    """
    author, reason = who.strip(), why.strip()
    if not author:
        raise UsageError("a move in the ledger has an author", next_step="set SIDREC_ACTOR")
    if not reason:
        raise UsageError("a move in the ledger has a reason", next_step="--reason '…'")
    return author, reason


def other_person(given: str | None, author: str) -> str | None:
    """Return who else stands behind a move, None where nobody was named.

    Raises:
        UsageError: it is the author, or nobody's name.
    """
    named = None if given is None else given.strip()
    if named is not None and (not named or named.casefold() == author.casefold()):
        raise UsageError(
            f"the second approver is somebody else than the author ({author})",
            next_step="--second-approver NAME of a person who looked at the verdict",
        )
    return named
