"""An experiment's moves: it starts beside the champion, its arms grow, it stops and everybody is the champion's again.

Each is a row of the ledger with a whole revision, deployed as a promotion is. The plan that the moves follow is named
by its digest, in the revision.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.decoding.exploration import Exploration
from sidrec.errors import InconclusiveError, LedgerError, UsageError, VerdictError
from sidrec.exclusion import Exclusion
from sidrec.release.authors import author_and_reason, second_person
from sidrec.release.checks import objections, overruled
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.policy import Policy, load_policy
from sidrec.release.ramp import check_ramp, digits
from sidrec.release.revision import Arm, BundleRef, Revision
from sidrec.release.row import decisions, next_revision
from sidrec.release.standing import phases, standing
from sidrec.release.verdict import Verdict, check_verdict


@dataclass(frozen=True, slots=True)
class Design:
    """What a frozen plan fixes of the revisions that run it."""

    experiment: str
    plan: str
    """SHA-256 of the frozen plan."""
    salt: str
    control: str
    shares: Mapping[str, float]
    exclusion: Exclusion | None = None
    exploration: Exploration | None = None


Candidate = tuple[Bundle, Path]
"""A bundle and the file of the verdict on it."""


def start(
    design: Design,
    challengers: Mapping[str, Candidate],
    *,
    why: str,
    who: str,
    accept_inconclusive: bool = False,
    second_approver: str | None = None,
    overrides: Collection[str] = (),
    champion: Bundle | None = None,
    policy: Policy | None = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: from now on the challengers have the plan's shares beside the present champion.

    Where the policy asks for two people, the row only asks, as a promotion does, and somebody else approves it.

    Args:
        challengers: bundle and verdict of every arm but the control's, which is what answers everybody now.
        accept_inconclusive: let a challenger with an inconclusive verdict be tried; needs a second person.
        overrides: names of checks that may say no to a challenger; needs a second person.
        champion: what answers now, to compare what clients see.

    Raises:
        UsageError: an arm has no bundle, no reason or author was given, or the second approver is the author.
        VerdictError: a challenger's verdict is not signed, of another bundle, expired or says fail.
        InconclusiveError: a challenger's verdict is inconclusive and nobody stood up for it.
        PromotionError: checks say no to a challenger; each says why.
        LedgerError: nothing was promoted yet, another experiment runs, or this one has run.
    """
    author, reason = author_and_reason(who, why)
    wanted = [arm for arm in design.shares if arm != design.control]
    if set(challengers) != set(wanted):
        raise UsageError(
            f"experiment {design.experiment} has the challengers {', '.join(wanted)}; bundles were given for "
            f"{', '.join(challengers) or 'none'}",
            next_step="name each challenger's bundle under `bundles:` in the plan",
        )
    approver = second_person(second_approver, author)
    rules, moment = policy or load_policy(), now or datetime.now(UTC)
    doubtful = approver is not None or rules.two_person
    judged = {
        arm: _passing(bundle, path, accepted=accept_inconclusive and doubtful, now=now)
        for arm, (bundle, path) in challengers.items()
    }
    book = ledger or Ledger()
    with book.writing() as writer:
        present = _free_to_start(book, writer.rows, design.experiment)
        names = {
            name
            for arm, (bundle, path) in challengers.items()
            for name in overruled(
                objections(
                    bundle,
                    judged[arm],
                    stage="challenger",
                    rows=writer.rows,
                    champion=champion,
                    policy=rules,
                    now=moment,
                ),
                overrides,
                doubtful=doubtful,
                evidence=path,
            )
        }
        bundles = {arm: BundleRef.of(challengers[arm][0]) for arm in wanted}
        revision = _started(design, bundles, present.revision, next_revision(writer.rows))
        kept = {ref.bundle_id for ref in revision.bundles}
        verdicts = {name: digest for name, digest in present.verdicts.items() if name in kept}
        verdicts |= {bundle.bundle_id: files.sha256_file(path) for bundle, path in challengers.values()}
        return writer.append(
            "ramp",
            who=author,
            why=f"{_said(revision)} start: {reason}",
            revision=revision,
            verdicts=verdicts,
            second_approver=approver or present.second_approver,
            pending_until=rules.waits_until(moment),
            overrides=tuple(sorted(names)),
        )


def _free_to_start(book: Ledger, rows: list[LedgerRow], experiment: str) -> LedgerRow:
    """Return the decision that stands, beside which an experiment can start.

    Raises:
        LedgerError: nothing was promoted yet, another experiment runs, or this one has run.
    """
    if ran := phases(rows, experiment):
        raise LedgerError(
            f"experiment {experiment} has run already (row {ran[0].seq} of the ledger)",
            evidence=book.path,
            next_step="freeze its plan as an experiment of another name",
        )
    present = standing(book, rows)
    if any(arm.share > 0 for arm in present.revision.arms[1:]):
        raise LedgerError(
            f"experiment {present.revision.experiment} runs, and a server answers by one experiment",
            evidence=book.path,
            next_step=f"sidrec ab stop {present.revision.experiment} --reason '…'",
        )
    return present


def _started(design: Design, challengers: Mapping[str, BundleRef], present: Revision, number: int) -> Revision:
    """Return the revision in which what answers now is the control, and the challengers have the plan's shares."""
    refs = {design.control: present.arms[0].bundle} | dict(challengers)
    arms = [Arm(name=arm, bundle=ref, share=design.shares[arm]) for arm, ref in refs.items()]
    changes = {
        "revision": number,
        "arms": arms,
        "experiment": design.experiment,
        "salt": design.salt,
        "plan": design.plan,
        "exclusion": design.exclusion,
        "exploration": design.exploration or present.exploration,
        # What has a share is seen by users now, and need not be decoded twice.
        "shadow": None if present.shadow in refs.values() else present.shadow,
    }
    return Revision.model_validate(present.model_dump() | changes)


def ramp(
    experiment: str,
    shares: Mapping[str, float],
    *,
    plan: str | None,
    why: str,
    who: str,
    policy: Policy | None = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: these arms have these shares, the first one has what is left.

    Where the policy asks for two people, the row only asks.

    Args:
        plan: SHA-256 of the experiment's frozen plan, None where it has none (a canary).

    Raises:
        UsageError: an arm that is none, more than all users, or users who would leave an arm that goes on.
        LedgerError: the experiment does not run, or has these shares already.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        present = _running(book, writer.rows, experiment, plan)
        revision = ramped(present.revision, shares).renumbered(next_revision(writer.rows))
        check_ramp(present.revision, revision)
        if revision.contents_sha256 == present.revision.contents_sha256:
            raise LedgerError(
                f"experiment {experiment} has these shares already (revision {present.revision.revision})",
                evidence=book.path,
                next_step="sidrec deploy",
            )
        return writer.append(
            "ramp",
            who=author,
            why=f"{_said(revision)}: {reason}",
            revision=revision,
            verdicts=present.verdicts,
            second_approver=present.second_approver,
            pending_until=(policy or load_policy()).waits_until(now),
        )


def ramped(revision: Revision, shares: Mapping[str, float]) -> Revision:
    """Return a revision whose challengers have new shares; the first arm has what is left.

    Raises:
        UsageError: an arm that is none of its challengers, or shares above 1 in sum.
    """
    challengers = {arm.name: arm.share for arm in revision.arms[1:]}
    if unknown := sorted(set(shares) - set(challengers)):
        raise UsageError(f"no challenger is called {', '.join(unknown)}; there are {', '.join(challengers)}")
    wanted = challengers | dict(shares)
    left = 1 - sum(wanted.values())
    if min(wanted.values()) < 0 or left < -1e-9:
        raise UsageError(f"shares are 0 to 1 and sum to at most 1; the challengers would have {wanted}")
    shared = {revision.arms[0].name: max(0.0, left)} | wanted
    arms = [arm.model_copy(update={"share": shared[arm.name]}) for arm in revision.arms]
    return Revision.model_validate(revision.model_dump() | {"arms": arms})


def stop(experiment: str | None = None, *, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: no challenger has a share, and what answered before the experiment does again.

    Stopping is the safe direction, so neither plan nor verdict is asked.

    Args:
        experiment: which one; None is the one that runs.

    Raises:
        UsageError: no reason or no author.
        LedgerError: no experiment runs, or another one does.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        present = standing(book, writer.rows)
        name = present.revision.experiment
        if name is None or experiment not in (None, name):
            said = "no experiment runs" if name is None else f"experiment {experiment} does not run; {name} does"
            raise LedgerError(said, evidence=book.path, next_step="sidrec ledger show")
        before = [row for row in decisions(writer.rows) if row.revision.experiment != name]
        champion = present.revision.arms[0].bundle
        back = next(row for row in reversed(before) if row.revision.arms[0].bundle == champion)
        return writer.append(
            "stop",
            who=author,
            why=f"experiment {name} stop (plan {digits(present.revision.plan)}): {reason}",
            revision=back.revision.renumbered(next_revision(writer.rows)),
            verdicts=back.verdicts,
            second_approver=back.second_approver,
            restores=back.revision.revision,
        )


def _running(book: Ledger, rows: list[LedgerRow], experiment: str, plan: str | None) -> LedgerRow:
    present = standing(book, rows)
    running = present.revision.experiment
    if running != experiment:
        raise LedgerError(
            f"experiment {experiment} does not run; {running or 'none'} does",
            evidence=book.path,
            next_step=f"sidrec ab start {experiment} --reason '…'",
        )
    if present.revision.plan != plan:
        raise LedgerError(
            f"experiment {running} started under the plan {digits(present.revision.plan)}, the frozen one is now "
            f"{digits(plan)}: it was changed after the start",
            evidence=book.path,
            next_step="restore the plan's file from a copy, or sidrec ab stop --reason '…'",
        )
    return present


def _passing(bundle: Bundle, path: Path, *, accepted: bool, now: datetime | None) -> Verdict:
    verdict = check_verdict(path, bundle, now=now)
    if verdict.result == "fail":
        raise VerdictError(verdict.sentence, evidence=path, next_step=f"sidrec bundle show {bundle.bundle_id}")
    if verdict.result == "inconclusive" and not accepted:
        raise InconclusiveError(
            verdict.sentence, evidence=path, next_step="--accept-inconclusive --second-approver NAME lets it be tried"
        )
    return verdict


def _said(revision: Revision) -> str:
    shares = ", ".join(f"{arm.name} {arm.share:.6g}" for arm in revision.arms[1:])
    return f"experiment {revision.experiment} {shares} (plan {digits(revision.plan)})"
