"""A share of users whose answers are drawn: on, otherwise, or off, by a row of the ledger like every other move."""

from datetime import datetime

from sidrec.decoding.exploration import Exploration
from sidrec.errors import LedgerError
from sidrec.release.authors import author_and_reason
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.policy import Policy, load_policy
from sidrec.release.row import next_revision
from sidrec.release.standing import standing


def explore(
    exploration: Exploration | None,
    *,
    why: str,
    who: str,
    policy: Policy | None = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> LedgerRow:
    """Return the ledger's new row: from now on these users see drawn answers; None ends it.

    Where the policy asks for two people, the row only asks. Ending it is the safe direction and waits for nobody.

    Raises:
        UsageError: no reason or no author.
        LedgerError: nothing was promoted, an experiment runs (its users would change), or it is so already.
    """
    author, reason = author_and_reason(who, why)
    book = ledger or Ledger()
    with book.writing() as writer:
        present = standing(book, writer.rows)
        if present.revision.experiment is not None:
            raise LedgerError(
                f"experiment {present.revision.experiment} runs; who explores is in none, so its users would change",
                evidence=book.path,
                next_step="set `exploration` in the next plan, or sidrec ab stop --reason '…'",
            )
        if present.revision.exploration == exploration:
            raise LedgerError("users explore so already", evidence=book.path, next_step="sidrec deploy")
        said = "ends" if exploration is None else f"{exploration.share:.6g}, temperature {exploration.temperature:.6g}"
        return writer.append(
            "ramp",
            who=author,
            why=f"exploration {said}: {reason}",
            revision=present.revision.model_copy(
                update={"revision": next_revision(writer.rows), "exploration": exploration}
            ),
            verdicts=present.verdicts,
            second_approver=present.second_approver,
            pending_until=None if exploration is None else (policy or load_policy()).waits_until(now),
        )
