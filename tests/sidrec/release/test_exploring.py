"""Exploration is a setting of the revision that a row of the ledger changes, never beside a running experiment."""

from pathlib import Path
from typing import Never

import pytest

from sidrec.decoding.exploration import Exploration
from sidrec.errors import LedgerError
from sidrec.release import trial
from sidrec.release.exploring import explore
from sidrec.release.ledger import Ledger
from sidrec.release.policy import Policy
from sidrec.release.promotion import approve, promote
from tests.release_world import make_bundle, make_signed
from tests.sidrec.release.test_trial import DESIGN, MOVE

FEW = Exploration(share=0.02, temperature=1.0)


@pytest.fixture(autouse=True)
def champion(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    make_signed(bundle, tmp_path / "verdict.json")
    promote(bundle, tmp_path / "verdict.json", why="first", who="ann")


def test_exploration_comes_and_goes_by_rows() -> None:
    """The same arms and verdict with and without it; the ledger still verifies."""
    on, off = explore(FEW, **MOVE), explore(None, **MOVE)
    first = Ledger().rows()[0]

    assert (on.revision.exploration, off.revision.exploration) == (FEW, None)
    assert off.revision.contents_sha256 == first.revision.contents_sha256 != on.revision.contents_sha256
    assert [on.verdicts, off.verdicts] == [first.verdicts] * 2
    assert "exploration 0.02, temperature 1" in on.why


def test_two_people_let_users_explore_and_one_ends_it() -> None:
    """Drawn answers are asked for like a promotion; going back to the best ones waits for nobody."""
    strict = Policy(two_person=True)
    asked = explore(FEW, policy=strict, **MOVE)
    seen = [_exploration()]
    approve(None, why="small enough", who="bob", bundle_of=_unasked, verdict_of=_unasked)
    seen.append(_exploration())
    explore(None, policy=strict, **MOVE)
    seen.append(_exploration())

    assert asked.pending_until is not None
    assert seen == [None, FEW, None]


def _exploration() -> Exploration | None:
    desired = Ledger().desired()
    assert desired is not None
    return desired.exploration


def _unasked(*_: str) -> Never:
    raise AssertionError("no bundle comes in")


def test_what_is_so_already_is_refused() -> None:
    """Off when it is off, on when it is on."""
    with pytest.raises(LedgerError, match="explore so already"):
        explore(None, **MOVE)
    explore(FEW, **MOVE)
    with pytest.raises(LedgerError, match="explore so already"):
        explore(FEW, **MOVE)


def test_an_experiment_goes_on_with_the_exploring_users_it_began_with(tmp_path: Path) -> None:
    """They are in none of its arms from the start, and no row changes who they are until it stops."""
    explore(FEW, **MOVE)
    other = make_bundle(tmp_path / "other", 1)
    make_signed(other, tmp_path / "other.json")
    started = trial.start(DESIGN, {"challenger": (other, tmp_path / "other.json")}, **MOVE)
    with pytest.raises(LedgerError, match="its users would change"):
        explore(None, **MOVE)

    assert started.revision.exploration == FEW
    assert trial.stop(**MOVE).revision.exploration == FEW
