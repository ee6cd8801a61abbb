"""The end of one arm: its users are the champion's again. It is the safe direction, so no verdict is asked."""

from sidrec.errors import LedgerError, UsageError
from sidrec.release.authors import author_and_reason
from sidrec.release.ledger import Ledger, Writer
from sidrec.release.revision import Revision
from sidrec.release.row import LedgerRow, decisions, next_revision
from sidrec.release.stages import without_arm


def stop_arm(arm: str, *, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: the arm answers nobody, the champion has its users, other arms keep theirs.

    Raises:
        UsageError: no reason or no author, or the arm is the champion's or none.
        LedgerError: nothing was promoted yet, or the arm has no share already.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        decided = decisions(writer.rows)
        if not decided:
            raise LedgerError("nothing was promoted yet", evidence=book.path, next_step="sidrec ledger show")
        present = decided[-1]
        _check(arm, present.revision, book)
        return append_stop(writer, present, arm, who=author, why=f"arm {arm} stop: {reason}")


def append_stop(
    writer: Writer, present: LedgerRow, arm: str, *, who: str, why: str, measured: dict[str, float] | None = None
) -> LedgerRow:
    """Return the ledger's new row: a challenger of what is asked for now has no share from here on."""
    after = without_arm(present.revision, arm, next_revision(writer.rows))
    stopped = next(one for one in present.revision.arms if one.name == arm)
    return writer.append(
        "stop",
        who=who,
        why=why,
        revision=after,
        verdicts={one: present.verdicts[one] for one in after.bundle_ids if one in present.verdicts},
        second_approver=present.second_approver,
        bundle=stopped.bundle.bundle_id,
        measured=measured,
    )


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
