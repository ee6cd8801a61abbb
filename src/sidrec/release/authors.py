"""Who makes a move and who else stands behind it."""

from sidrec.errors import UsageError


def author_and_reason(who: str, why: str) -> tuple[str, str]:
    """Return both without white space around them.

    Raises:
        UsageError: one is empty.
    """
    author, reason = who.strip(), why.strip()
    if not author:
        raise UsageError("a move in the ledger has an author", next_step="set SIDREC_ACTOR")
    if not reason:
        raise UsageError("a move in the ledger has a reason", next_step="--reason '…'")
    return author, reason


def second_person(name: str | None, author: str) -> str | None:
    """Return the name of who else stands behind a move, None where nobody is named.

    Raises:
        UsageError: it is empty, or the author's own.
    """
    if name is None:
        return None
    other = name.strip()
    if not other or same_person(other, author):
        raise UsageError(
            f"the second approver is somebody else than the author ({author})",
            next_step="--second-approver NAME of a person who looked at the verdict",
        )
    return other


def same_person(one: str, other: str) -> bool:
    """Return whether two names are one person's."""
    return one.strip().casefold() == other.strip().casefold()
