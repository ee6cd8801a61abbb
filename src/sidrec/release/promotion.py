"""What may be promoted, who has to approve it, and what a server may load.

Every move is a row in the ledger; none is made by a pipeline.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.errors import InconclusiveError, LedgerError, UsageError, VerdictError
from sidrec.release.authors import author_and_reason, same_person, second_person
from sidrec.release.checks import objections, overruled
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.policy import Policy, load_policy
from sidrec.release.rollback import previous_good, rollback
from sidrec.release.row import Stage, decisions, next_revision
from sidrec.release.stages import revision_for
from sidrec.release.verdict import Verdict, check_verdict

__all__ = ["approve", "authorise", "pending", "previous_good", "promote", "require_empty", "rollback"]


def promote(
    bundle: Bundle,
    verdict_path: Path,
    *,
    why: str,
    who: str,
    to: Stage = "champion",
    share: float | None = None,
    first: bool = False,
    accept_inconclusive: bool = False,
    second_approver: str | None = None,
    overrides: Sequence[str] = (),
    champion: Bundle | None = None,
    policy: Policy | None = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: from now on, or once somebody approved it, this bundle ought to have its place.

    Args:
        to: its place; a canary's share is the policy's, a challenger's 0.
        share: of users, for a canary or a challenger.
        first: the very first promotion of an installation; refused once the ledger has a row.
        accept_inconclusive: promote on an inconclusive verdict; needs a second approver.
        overrides: names of checks that may say no; needs a second approver.
        champion: what answers now, to compare what clients see.

    Raises:
        UsageError: no reason, no author, a second approver who is the author, or a place that cannot be had.
        VerdictError: the verdict is not signed, of another bundle, expired or says fail.
        InconclusiveError: the verdict is inconclusive and nobody stood up for it.
        PromotionError: checks say no; each says why.
        LedgerError: `first` and the ledger has rows, this bundle is already what it asks for, or somebody else decided
            something while this was being checked.
    """
    author, reason = author_and_reason(who, why)
    approver = second_person(second_approver, author)
    rules, moment, book = policy or load_policy(), now or datetime.now(UTC), ledger or Ledger()
    doubtful = approver is not None or rules.two_person
    seen = book.rows()
    verdict = check_verdict(verdict_path, bundle, now=now)
    _require_result(verdict, verdict_path, accepted=accept_inconclusive and doubtful)
    with book.writing() as writer:
        if first:
            require_empty(book, writer.rows)
        _require_unmoved(book, seen, writer.rows)
        base = next(reversed(decisions(writer.rows)), None)
        present = None if base is None else base.revision
        revision = revision_for(to, bundle, present, next_revision(writer.rows), _share(to, share, rules))
        if base is not None and base.revision.contents_sha256 == revision.contents_sha256:
            raise LedgerError(
                f"{bundle.bundle_id} is already what revision {base.revision.revision} asks for",
                evidence=book.path,
                next_step="sidrec deploy",
            )
        said = objections(bundle, verdict, stage=to, rows=writer.rows, champion=champion, policy=rules, now=moment)
        names = overruled(said, overrides, doubtful=doubtful, evidence=verdict_path)
        before = {} if base is None else base.verdicts
        carried = {one: before[one] for one in revision.bundle_ids if one in before}
        return writer.append(
            "promote",
            who=author,
            why=reason,
            revision=revision,
            verdicts={**carried, bundle.bundle_id: files.sha256_file(verdict_path)},
            second_approver=approver,
            bundle=bundle.bundle_id,
            stage=None if to == "champion" else to,
            pending_until=rules.waits_until(moment),
            overrides=names,
        )


def approve(
    number: int | None,
    *,
    why: str,
    who: str,
    bundle_of: Callable[[str], Bundle],
    verdict_of: Callable[[str, str], Path],
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: what somebody else asked for counts from now on.

    Args:
        number: of the row that asked; None takes the only one that waits.
        bundle_of: bundle id -> the bundle.
        verdict_of: (bundle id, SHA-256) -> the verdict's file.

    Raises:
        UsageError: no reason, no author, or the author approves himself.
        LedgerError: nothing, or more than one promotion waits; it expired; or something else was decided since.
        VerdictError: the verdict expired since, or is not the one that the promotion was checked with.
    """
    author, reason = author_and_reason(who, why)
    moment, book = now or datetime.now(UTC), ledger or Ledger()
    with book.writing() as writer:
        asked = _waiting(book, writer.rows, number, moment)
        if same_person(author, asked.who):
            raise UsageError(
                f"{author} asked for it in row {asked.seq}, and nobody approves what they asked for",
                next_step="somebody else: sidrec approve --reason '…'",
            )
        for bundle_id in _about(asked, decisions(writer.rows)):
            path = verdict_of(bundle_id, asked.verdicts[bundle_id])
            verdict = check_verdict(path, bundle_of(bundle_id), now=moment)
            if files.sha256_file(path) != asked.verdicts[bundle_id]:
                raise VerdictError(f"{path.name} is not the verdict that row {asked.seq} names", evidence=path)
            _require_result(verdict, path, accepted=True)
        return writer.append(
            "approve",
            who=author,
            why=reason,
            revision=asked.revision.renumbered(next_revision(writer.rows)),
            verdicts=asked.verdicts,
            second_approver=asked.second_approver,
            bundle=asked.bundle,
            stage=asked.stage,
            approves=asked.seq,
            overrides=asked.overrides,
        )


def pending(rows: Sequence[LedgerRow], now: datetime) -> list[LedgerRow]:
    """Return the promotions, starts and ramps that wait for an approval and can still have one."""
    approved = {row.approves for row in rows}
    last = max((row.seq for row in rows if row.decides), default=0)
    return [
        row
        for row in rows
        if row.pending_until is not None and row.seq not in approved and row.seq > last and now <= row.pending_until
    ]


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


def authorise(bundle: Bundle, verdict_path: Path, row: LedgerRow, rows: Sequence[LedgerRow] = ()) -> Verdict:
    """Return the verdict that lets a server load this bundle for a row of the ledger.

    It must be the very file that the row names, signed, of exactly this bundle, and pass, or be inconclusive with a
    second person behind it. Its age was checked when it was promoted.

    Args:
        rows: the ledger; one of its rows may have brought this verdict in, and its second person with it.

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
    behind = [one for one in (row, *rows) if one.decides and one.verdicts.get(bundle.bundle_id) == named]
    _require_result(
        verdict, verdict_path, accepted=any(one.second_approver or one.action == "approve" for one in behind)
    )
    return verdict


def _about(asked: LedgerRow, before: Sequence[LedgerRow]) -> list[str]:
    """Return the bundles that an approval brings in: of a start the challengers, of a ramp none."""
    if asked.action == "promote":
        return [asked.bundle]
    there = before[-1].verdicts if before else {}
    return [name for name, verdict in asked.verdicts.items() if there.get(name) != verdict]


def _waiting(book: Ledger, rows: Sequence[LedgerRow], number: int | None, now: datetime) -> LedgerRow:
    waiting = pending(rows, now)
    if number is None:
        if len(waiting) == 1:
            return waiting[0]
        said = "nothing waits" if not waiting else f"rows {', '.join(str(row.seq) for row in waiting)} wait"
        raise LedgerError(f"{said} for an approval", evidence=book.path, next_step="sidrec approve ROW --reason '…'")
    if found := [row for row in waiting if row.seq == number]:
        return found[0]
    asked = next((row for row in rows if row.seq == number and row.pending_until is not None), None)
    why = f"row {number} asks for no approval"
    if asked is not None and asked.pending_until is not None:
        later = next((row for row in rows if row.decides and row.seq > number), None)
        why = f"row {number} could be approved until {asked.pending_until:%Y-%m-%d %H:%M} UTC"
        if later is not None:
            did = "approved it" if later.approves == number else f"decided otherwise ({later.action}, row {later.seq})"
            why = f"{later.who} {did} since row {number} asked"
    raise LedgerError(why, evidence=book.path, next_step="sidrec ledger show; then promote again")


def _require_unmoved(book: Ledger, seen: Sequence[LedgerRow], rows: Sequence[LedgerRow]) -> None:
    """Refuse a move that was checked against what is no longer there: of two at once, one wins and one is told."""
    if since := decisions(rows[len(seen) :]):
        row = since[-1]
        raise LedgerError(
            f"{row.who} decided something else meanwhile (row {row.seq}: {row.action} {row.bundle}): {row.why}",
            evidence=book.path,
            next_step="look at what is asked for now (sidrec ledger show), then promote again if it still holds",
        )


def _require_result(verdict: Verdict, path: Path, *, accepted: bool) -> None:
    if verdict.result == "fail":
        raise VerdictError(verdict.sentence, evidence=path, next_step=f"sidrec bundle show {verdict.bundle_id}")
    if verdict.result == "inconclusive" and not accepted:
        raise InconclusiveError(
            verdict.sentence,
            evidence=path,
            next_step=f"sidrec promote {verdict.bundle_id} --accept-inconclusive --second-approver NAME --reason '…'",
        )


def _share(stage: Stage, share: float | None, policy: Policy) -> float:
    if share is None:
        return policy.canary_share if stage == "canary" else 0.0
    if stage not in ("canary", "challenger"):
        raise UsageError(f"a {stage} has no share of its own", next_step="leave --share out")
    # A canary is a small share; half of the users is an experiment.
    if not 0 <= share <= 0.5 or (stage == "canary" and share == 0):
        raise UsageError(f"{share:.0%} of users is no share of a {stage}", next_step="--share 0.05")
    return share
