"""The end of one arm: its users are the champion's again. It is the safe direction, so no verdict is asked."""

from sidrec.errors import LedgerError, UsageError
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.revision import Revision


def stop_arm(arm: str, *, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: the arm has no share any more, the champion has it, other arms keep theirs.

    Raises:
        UsageError: no reason or no author, or the arm is the champion's or none.
        LedgerError: nothing was promoted yet, or the arm has no share already.
    """
    author, reason = who.strip(), why.strip()
    if not author or not reason:
        raise UsageError("a move in the ledger has an author and a reason", next_step="--reason '…'")
    book = ledger or Ledger()
    with book.writing() as writer:
        decisions = [row for row in writer.rows if row.action != "live"]
        if not decisions:
            raise LedgerError("nothing was promoted yet", evidence=book.path, next_step="sidrec ledger show")
        present = decisions[-1]
        _check(arm, present.revision, book)
        number = max(row.revision.revision for row in writer.rows) + 1
        return writer.append(
            "stop",
            who=author,
            why=f"arm {arm} stop: {reason}",
            revision=without(present.revision, arm).renumbered(number),
            verdicts=present.verdicts,
            second_approver=present.second_approver,
        )


def without(revision: Revision, arm: str) -> Revision:
    """Return a revision whose arm keeps its place and has no share; its share is the champion's."""
    freed = next(one.share for one in revision.arms if one.name == arm)
    shares = {one.name: one.share for one in revision.arms} | {arm: 0.0}
    shares[revision.arms[0].name] += freed
    arms = [one.model_copy(update={"share": shares[one.name]}) for one in revision.arms]
    return Revision.model_validate(revision.model_dump() | {"arms": arms})


def _check(arm: str, revision: Revision, book: Ledger) -> None:
    challengers = {one.name: one.share for one in revision.arms[1:]}
    if arm == revision.arms[0].name:
        raise UsageError(
            f"arm {arm} is the champion, which answers everybody else: it cannot be stopped",
            next_step="sidrec rollback --reason '…'",
        )
    if arm not in challengers:
        raise UsageError(
            f"no arm of revision {revision.revision} is called {arm}; challengers: {', '.join(challengers) or 'none'}",
            next_step="sidrec ledger show",
        )
    if challengers[arm] == 0:
        raise LedgerError(f"arm {arm} has no share already", evidence=book.path, next_step="sidrec deploy")
