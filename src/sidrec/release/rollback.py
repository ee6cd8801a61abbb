"""Going back: to which revision, and the row that asks for it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sidrec.errors import LedgerError
from sidrec.release.authors import author_and_reason
from sidrec.release.ledger import Ledger
from sidrec.release.revision import Revision
from sidrec.release.row import LedgerRow, canonical, decisions, next_revision, sha256
from sidrec.release.stages import answering

JUST_NOW: Final = timedelta(minutes=2)
# What only says who is in which arm; `answering` says it better.
_ARRANGEMENT: Final = {"revision", "arms", "experiment", "salt", "shadow", "plan", "exclusion"}


def rollback(*, why: str, who: str, again: bool = False, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: a new revision with the contents of the last good one before the present.

    Going back is the safe direction, so neither a second person, the age of the old verdict nor the registry is asked.

    Args:
        again: go back once more although somebody else did so just now.

    Raises:
        UsageError: no reason or no author.
        LedgerError: there is nothing to go back to, or somebody else went back within the last two minutes.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        last = next(reversed(decisions(writer.rows)), None)
        if last is not None and not again:
            _refuse_twice(last, author, book)
        target = previous_good(writer.rows)
        if target is None:
            raise LedgerError(
                "there is no earlier revision to go back to",
                evidence=book.path,
                next_step="sidrec ledger show",
            )
        return writer.append(
            "rollback",
            who=author,
            why=reason,
            revision=target.revision.renumbered(next_revision(writer.rows)),
            verdicts=target.verdicts,
            second_approver=target.second_approver,
            restores=target.revision.revision,
        )


def previous_good(rows: Sequence[LedgerRow]) -> LedgerRow | None:
    """Return the decision that a rollback goes back to, None where there is none.

    Decisions are a stack: each goes on top, a rollback takes off what it went back over, so that a second rollback
    never returns to what the first one fled from. Below the top, only a revision counts in which one bundle, without a
    shadow, answers everybody, and not as at present: a rollback is out of an experiment, ramps and all, in one go. Of
    those the newest that was ever live wins; where none was (nothing has been deployed yet), the newest.
    """
    stack: list[LedgerRow] = []
    for row in decisions(rows):
        if row.action == "rollback":
            while stack and stack[-1].revision.contents_sha256 != row.revision.contents_sha256:
                stack.pop()
            if stack:
                stack.pop()
        stack.append(row)
    served = {row.revision.contents_sha256 for row in rows if row.action == "live"}
    present = _effect(stack[-1].revision) if stack else ""
    whole = [row for row in stack[-2::-1] if len(answering(row.revision)) == 1]
    earlier = [row for row in whole if _effect(row.revision) != present]
    return next((row for row in earlier if row.revision.contents_sha256 in served), earlier[0] if earlier else None)


def _effect(revision: Revision) -> str:
    """Return what tells apart two revisions that users or servers would."""
    others = revision.model_dump(mode="json", exclude=_ARRANGEMENT)
    return sha256(canonical({**others, "bundles": sorted(answering(revision))}))


def _refuse_twice(last: LedgerRow, author: str, book: Ledger) -> None:
    since = datetime.now(UTC) - last.time
    if last.action == "rollback" and last.who != author and since < JUST_NOW:
        raise LedgerError(
            f"{last.who} rolled back {since.total_seconds():.0f} s ago (row {last.seq}, {last.bundle}): {last.why}",
            evidence=book.path,
            next_step="look at sidrec status; sidrec rollback --again goes back one more",
        )
