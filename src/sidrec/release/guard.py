"""Watching the arms that run, and stopping one that hurts: a row in the ledger, and no person needed.

It only ever takes an arm away; nothing that it does gives a bundle more users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from sidrec.errors import LedgerError
from sidrec.release.arm_health import NOTHING, ArmHealth, arm_health
from sidrec.release.guardrails import Breach, breaches
from sidrec.release.ledger import Ledger, decisions
from sidrec.release.policy import Policy
from sidrec.release.revision import Revision
from sidrec.release.row import LedgerRow
from sidrec.release.stop import append_stop

AUTHOR = "guard"


@dataclass(frozen=True, slots=True)
class Watched:
    """One arm beside the champion, and what it breaks."""

    arm: str
    bundle: str
    health: ArmHealth
    champion: ArmHealth
    broken: tuple[Breach, ...]

    @property
    def sentence(self) -> str:
        """What to write down: the arm, and each guardrail that it breaks."""
        said = "; ".join(breach.sentence for breach in self.broken) or "no guardrail is broken"
        return f"{self.arm} ({self.bundle}): {said}"


def watch(exposures: pl.LazyFrame, rows: Sequence[LedgerRow], policy: Policy) -> list[Watched]:
    """Return each arm that answers users beside the champion, as the exposures of the present revision show it."""
    decided = decisions(rows)
    if not decided:
        return []
    revision = decided[-1].revision
    champion = revision.arms[0]
    arms = [arm for arm in revision.arms[1:] if arm.share > 0]
    if not arms:
        return []
    found = arm_health(exposures, revision, slow=policy.guardrails.slow)
    theirs = found.get(champion.name, NOTHING)
    return [
        Watched(
            arm=arm.name,
            bundle=arm.bundle.bundle_id,
            health=(mine := found.get(arm.name, NOTHING)),
            champion=theirs,
            broken=tuple(breaches(mine, theirs, policy.guardrails, share=arm.share / (arm.share + champion.share))),
        )
        for arm in arms
    ]


def stop(watched: Watched, revision: Revision, *, ledger: Ledger) -> LedgerRow:
    """Return the ledger's new row: the arm answers nobody from now on.

    Raises:
        LedgerError: something else was decided meanwhile; what it broke was seen under another revision.
    """
    with ledger.writing() as writer:
        base = decisions(writer.rows)[-1]
        if base.revision != revision:
            raise LedgerError(
                f"{base.who} decided something else meanwhile (row {base.seq}: {base.action} {base.bundle})",
                evidence=ledger.path,
                next_step="sidrec guard looks again",
            )
        figures = {breach.guardrail: breach.observed for breach in watched.broken}
        return append_stop(writer, base, watched.arm, who=AUTHOR, why=watched.sentence, measured=figures)
