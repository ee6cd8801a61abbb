"""An arm is stopped by a row of the ledger; its users are the champion's, and nothing new answers anybody."""

import pytest

from sidrec.errors import LedgerError, UsageError
from sidrec.release.ledger import Ledger
from sidrec.release.ramp import check_ramp
from sidrec.release.revision import Arm, BundleRef, Revision
from sidrec.release.stop import stop_arm

SHARES = {"control": 0.5, "treatment": 0.3, "other": 0.2}


def ref(number: int) -> BundleRef:
    digest = f"{number:x}" * 64
    return BundleRef(bundle_id=f"b-{digest[:12]}", sha256=digest)


@pytest.fixture
def book() -> Ledger:
    """A ledger in which an experiment of three arms runs."""
    revision = Revision.model_validate(
        {
            "revision": 1,
            "arms": [Arm(name=name, bundle=ref(i), share=share) for i, (name, share) in enumerate(SHARES.items())],
            "experiment": "e",
            "salt": "s",
            "deadline_ms": 100,
            "history_deadline_ms": 50,
            "history_max_age_days": 400,
            "exposure_flush_s": 1.0,
            "clock": "wall",
        }
    )
    ledger = Ledger()
    with ledger.writing() as writer:
        writer.append("promote", who="ann", why="try", revision=revision, verdicts={})
    return ledger


def test_its_share_is_the_champions_and_nobody_else_moves(book: Ledger) -> None:
    """The arm keeps its place without a share, so users of other arms stay; no bundle is new."""
    before = book.rows()[-1].revision
    row = stop_arm("treatment", why="codes collapsed", who="ann")

    assert {arm.name: arm.share for arm in row.revision.arms} == {"control": 0.8, "treatment": 0.0, "other": 0.2}
    assert (row.action, row.revision.revision, row.verdicts) == ("stop", 2, {})
    assert row.revision.bundles == before.bundles
    assert book.desired() == row.revision
    check_ramp(before, row.revision)


@pytest.mark.parametrize(
    ("arm", "why", "error", "said"),
    [
        ("control", "x", UsageError, "is the champion"),
        ("nobody", "x", UsageError, "challengers: treatment, other"),
        ("treatment", " ", UsageError, "a reason"),
    ],
)
def test_what_is_no_challenger_is_not_stopped(
    arm: str, why: str, error: type[Exception], said: str, book: Ledger
) -> None:
    """The champion is rolled back instead; a refused stop leaves no row."""
    with pytest.raises(error, match=said):
        stop_arm(arm, why=why, who="ann")

    assert len(book.rows()) == 1


def test_a_stopped_arm_is_stopped_once(book: Ledger) -> None:
    """A second stop says that there is nothing to stop."""
    stop_arm("treatment", why="x", who="ann")

    with pytest.raises(LedgerError, match="no share already"):
        stop_arm("treatment", why="x", who="ann")


def test_nothing_promoted_is_nothing_to_stop() -> None:
    """An empty ledger has no arms."""
    with pytest.raises(LedgerError, match="nothing was promoted"):
        stop_arm("treatment", why="x", who="ann")
