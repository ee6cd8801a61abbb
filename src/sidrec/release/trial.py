"""An experiment's moves: it starts beside the champion, its arms grow, it stops and everybody is the champion's again.

Each is a row of the ledger with a whole revision, deployed as a promotion is. The plan that the moves follow is named
by its digest, in the revision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.decoding.exploration import Exploration
from sidrec.errors import InconclusiveError, LedgerError, UsageError, VerdictError
from sidrec.exclusion import Exclusion
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.ramp import check_ramp
from sidrec.release.revision import Arm, BundleRef, Revision
from sidrec.release.standing import author_and_reason, decisions, next_number, other_person, phases, standing
from sidrec.release.verdict import check_verdict


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
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: from now on the challengers have the plan's shares beside the present champion.

    Args:
        challengers: bundle and verdict of every arm but the control's, which is what answers everybody now.
        accept_inconclusive: let a challenger with an inconclusive verdict be tried; needs a second approver.

    Raises:
        UsageError: an arm has no bundle, no reason or author was given, or the second approver is the author.
        VerdictError: a challenger's verdict is not signed, of another bundle, expired or says fail.
        InconclusiveError: a challenger's verdict is inconclusive and nobody stood up for it.
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
    approver = other_person(second_approver, author)
    accepted = accept_inconclusive and approver is not None
    for bundle, path in challengers.values():
        _require_result(bundle, path, accepted=accepted, now=now)
    book = ledger or Ledger()
    with book.writing() as writer:
        if ran := phases(writer.rows, design.experiment):
            raise LedgerError(
                f"experiment {design.experiment} has run already (row {ran[0].seq} of the ledger)",
                evidence=book.path,
                next_step="freeze its plan as an experiment of another name",
            )
        present = standing(book, writer.rows)
        if present.revision.experiment is not None:
            raise LedgerError(
                f"experiment {present.revision.experiment} runs, and a server answers by one experiment",
                evidence=book.path,
                next_step="sidrec ab stop --reason '…'",
            )
        champion = present.revision.arms[0].bundle
        refs = {design.control: champion} | {arm: BundleRef.of(bundle) for arm, (bundle, _) in challengers.items()}
        revision = Revision.model_validate(
            present.revision.model_dump()
            | {
                "revision": next_number(writer.rows),
                "arms": [
                    Arm(name=arm, bundle=refs[arm], share=design.shares[arm]) for arm in (design.control, *wanted)
                ],
                "experiment": design.experiment,
                "salt": design.salt,
                "plan": design.plan,
                "exclusion": design.exclusion,
                "exploration": design.exploration or present.revision.exploration,
            }
        )
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
        )


def ramp(design: Design, shares: Mapping[str, float], *, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: these arms have these shares, the control has what is left.

    Raises:
        UsageError: an arm that is none, more than all users, or users who would leave an arm that goes on.
        LedgerError: the experiment does not run, or has these shares already.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        present = _running(book, writer.rows, design)
        revision = ramped(present.revision, shares).renumbered(next_number(writer.rows))
        check_ramp(present.revision, revision)
        if revision.contents_sha256 == present.revision.contents_sha256:
            raise LedgerError(
                f"experiment {design.experiment} has these shares already (revision {present.revision.revision})",
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


def stop(*, why: str, who: str, ledger: Ledger | None = None) -> LedgerRow:
    """Return the ledger's new row: no challenger has a share, and what answered before the experiment does again.

    Stopping is the safe direction, so neither plan nor verdict is asked.

    Raises:
        UsageError: no reason or no author.
        LedgerError: no experiment runs.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        present = standing(book, writer.rows)
        name = present.revision.experiment
        if name is None:
            raise LedgerError("no experiment runs", evidence=book.path, next_step="sidrec ledger show")
        before = [row for row in decisions(writer.rows) if row.revision.experiment != name]
        champion = present.revision.arms[0].bundle
        back = next(row for row in reversed(before) if row.revision.arms[0].bundle == champion)
        return writer.append(
            "stop",
            who=author,
            why=f"experiment {name} stop (plan {_digits(present.revision)}): {reason}",
            revision=back.revision.renumbered(next_number(writer.rows)),
            verdicts=back.verdicts,
            second_approver=back.second_approver,
            restores=back.revision.revision,
        )


def _running(book: Ledger, rows: list[LedgerRow], design: Design) -> LedgerRow:
    present = standing(book, rows)
    running = present.revision.experiment
    if running != design.experiment:
        raise LedgerError(
            f"experiment {design.experiment} does not run; {running or 'none'} does",
            evidence=book.path,
            next_step=f"sidrec ab start {design.experiment} --reason '…'",
        )
    if present.revision.plan != design.plan:
        raise LedgerError(
            f"experiment {running} started under the plan {_digits(present.revision)}, the frozen one is now "
            f"{design.plan[:12]}: it was changed after the start",
            evidence=book.path,
            next_step="restore the plan's file from a copy, or sidrec ab stop --reason '…'",
        )
    return present


def _require_result(bundle: Bundle, path: Path, *, accepted: bool, now: datetime | None) -> None:
    verdict = check_verdict(path, bundle, now=now)
    if verdict.result == "fail":
        raise VerdictError(verdict.sentence, evidence=path, next_step=f"sidrec bundle show {bundle.bundle_id}")
    if verdict.result == "inconclusive" and not accepted:
        raise InconclusiveError(
            verdict.sentence, evidence=path, next_step="--accept-inconclusive --second-approver NAME lets it be tried"
        )


def _said(revision: Revision) -> str:
    shares = ", ".join(f"{arm.name} {arm.share:.6g}" for arm in revision.arms[1:])
    return f"experiment {revision.experiment} {shares} (plan {_digits(revision)})"


def _digits(revision: Revision) -> str:
    return "none" if revision.plan is None else revision.plan[:12]
