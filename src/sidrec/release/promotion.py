"""What may be promoted, what a rollback goes back to, and what a server may load.

Every move is a row in the ledger; none is made by a pipeline.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.errors import InconclusiveError, LedgerError, UsageError, VerdictError
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.revision import single_arm
from sidrec.release.verdict import Verdict, check_verdict


def promote(
    bundle: Bundle,
    verdict_path: Path,
    *,
    why: str,
    who: str,
    first: bool = False,
    accept_inconclusive: bool = False,
    second_approver: str | None = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: from now on this bundle ought to answer everybody.

    Args:
        first: the very first promotion of an installation; refused once the ledger has a row.
        accept_inconclusive: promote on an inconclusive verdict; needs a second approver.

    Raises:
        UsageError: no reason, no author, or a second approver who is the author.
        VerdictError: the verdict is not signed, of another bundle, expired or says fail.
        InconclusiveError: the verdict is inconclusive and nobody stood up for it.
        LedgerError: `first` and the ledger has rows, or this bundle is already what it asks for.
    """
    author, reason = _author_and_reason(who, why)
    approver = None if second_approver is None else second_approver.strip()
    if approver is not None and (not approver or approver.casefold() == author.casefold()):
        raise UsageError(
            f"the second approver is somebody else than the author ({author})",
            next_step="--second-approver NAME of a person who looked at the verdict",
        )
    verdict = check_verdict(verdict_path, bundle, now=now)
    _require_result(verdict, verdict_path, accepted=accept_inconclusive and approver is not None)
    book = ledger or Ledger()
    with book.writing() as writer:
        if first:
            require_empty(book, writer.rows)
        revision = single_arm(_next_number(writer.rows), bundle)
        decisions = [row for row in writer.rows if row.action != "live"]
        if decisions and decisions[-1].revision.contents_sha256 == revision.contents_sha256:
            raise LedgerError(
                f"{bundle.bundle_id} is already what revision {decisions[-1].revision.revision} asks for",
                evidence=book.path,
                next_step="sidrec deploy",
            )
        return writer.append(
            "promote",
            who=author,
            why=reason,
            revision=revision,
            verdicts={bundle.bundle_id: files.sha256_file(verdict_path)},
            second_approver=approver,
        )


def require_empty(ledger: Ledger, rows: Sequence[LedgerRow]) -> None:
    """Refuse a first promotion where there was one already.

    Raises:
        LedgerError: the ledger has rows.
    """
    if rows:
        raise LedgerError(
            f"--first is for an empty ledger, this one has {len(rows)} rows",
            evidence=ledger.path,
            next_step="sidrec promote BUNDLE --reason '…'",
        )


def rollback(*, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: a new revision with the contents of the last good one before the present.

    Going back is the safe direction, so neither the age of the old verdict nor the registry is asked.

    Raises:
        UsageError: no reason or no author.
        LedgerError: there is nothing to go back to.
    """
    author, reason = _author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
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
            revision=target.revision.renumbered(_next_number(writer.rows)),
            verdicts=target.verdicts,
            second_approver=target.second_approver,
            restores=target.revision.revision,
        )


def previous_good(rows: Sequence[LedgerRow]) -> LedgerRow | None:
    """Return the decision that a rollback goes back to, None where there is none.

    Decisions are a stack: a promotion goes on top, a rollback takes off what it went back over, so that a second
    rollback never returns to what the first one fled from. Of those below the top, the newest that was ever live
    wins; where none was (nothing has been deployed yet), the newest.
    """
    stack: list[LedgerRow] = []
    for row in rows:
        if row.action == "rollback":
            while stack and stack[-1].revision.contents_sha256 != row.revision.contents_sha256:
                stack.pop()
            if stack:
                stack.pop()
        if row.action != "live":
            stack.append(row)
    served = {row.revision.contents_sha256 for row in rows if row.action == "live"}
    present = stack[-1].revision.contents_sha256 if stack else ""
    earlier = [row for row in stack[-2::-1] if row.revision.contents_sha256 != present]
    return next((row for row in earlier if row.revision.contents_sha256 in served), earlier[0] if earlier else None)


def authorise(bundle: Bundle, verdict_path: Path, row: LedgerRow) -> Verdict:
    """Return the verdict that lets a server load this bundle for a row of the ledger.

    It must be the very file that the row names, signed, of exactly this bundle, and pass, or be inconclusive with the
    row's second approver behind it. Its age was checked when it was promoted.

    Raises:
        VerdictError: any of these does not hold; the bundle may not be loaded.
    """
    named = row.verdicts.get(bundle.bundle_id)
    if named is None or bundle.sha256 not in {ref.sha256 for ref in row.revision.bundles}:
        raise VerdictError(f"row {row.seq} of the ledger does not ask for {bundle.bundle_id} ({bundle.sha256[:16]}…)")
    verdict = check_verdict(verdict_path, bundle, fresh=False)
    if files.sha256_file(verdict_path) != named:
        raise VerdictError(
            f"{verdict_path.name} is not the verdict that row {row.seq} of the ledger names", evidence=verdict_path
        )
    _require_result(verdict, verdict_path, accepted=row.second_approver is not None)
    return verdict


def _require_result(verdict: Verdict, path: Path, *, accepted: bool) -> None:
    if verdict.result == "fail":
        raise VerdictError(verdict.sentence, evidence=path, next_step=f"sidrec bundle show {verdict.bundle_id}")
    if verdict.result == "inconclusive" and not accepted:
        raise InconclusiveError(
            verdict.sentence,
            evidence=path,
            next_step=f"sidrec promote {verdict.bundle_id} --accept-inconclusive --second-approver NAME --reason '…'",
        )


def _next_number(rows: Sequence[LedgerRow]) -> int:
    return max((row.revision.revision for row in rows), default=0) + 1


def _author_and_reason(who: str, why: str) -> tuple[str, str]:
    author, reason = who.strip(), why.strip()
    if not author:
        raise UsageError("a move in the ledger has an author", next_step="set SIDREC_ACTOR")
    if not reason:
        raise UsageError("a move in the ledger has a reason", next_step="--reason '…'")
    return author, reason
