"""A read-out shows everything in its order, or only why it shows nothing."""

import polars as pl
import pytest

from sidrec.errors import UsageError
from sidrec.experiment.attribution import attribute
from sidrec.experiment.plan import Cells
from sidrec.experiment.readout import Readout, read_out
from tests.experiment_world import PURCHASES, plan, simulated_users

PLAN = plan(slices=("new_user",))


def test_a_real_gain_is_shipped() -> None:
    """Twenty percent more purchases on 20,000 users: effect, guardrail, slices and the sentence agree."""
    found = read_out(PLAN, simulated_users(20_000, lift=0.2, seed=1), days=14)
    assert found.primary is not None
    assert found.primary.relative_always_valid is not None
    low, high = found.primary.relative_always_valid

    assert found.decision.verdict == "ship"
    assert low < 0.2 < high
    assert [one.result for one in found.guardrails] == ["pass"]
    assert [one.value for one in found.slices] == ["False", "True"]
    assert found.attribution is None


def test_a_red_light_leaves_no_number_to_read() -> None:
    """One user who saw two arms hides the gain from the object and from its JSON."""
    users = simulated_users(20_000, lift=0.2, seed=1)
    impure = users.with_columns(arms=pl.when(pl.int_range(pl.len()) == 0).then(2).otherwise(1))
    found = read_out(PLAN, impure, days=14)

    assert not found.trusted
    assert (found.primary, found.guardrails, found.slices, found.attribution) == (None, (), (), None)
    assert found.decision.sentence.startswith("The result is hidden. stickiness: 1 users saw more than one arm.")


def test_lost_answers_reach_the_trust_box() -> None:
    """Three percent of an arm's rows are lost: hidden."""
    found = read_out(PLAN, simulated_users(20_000, lift=0.2, seed=1), days=14, lost={"treatment": 0.03})

    assert found.decision.verdict == "hidden"


def test_it_survives_json() -> None:
    """What is written is what is read again."""
    found = read_out(PLAN, simulated_users(20_000, seed=2), days=14)

    assert Readout.model_validate_json(found.model_dump_json()) == found


def test_a_crossed_plan_has_an_attribution() -> None:
    """Four arms: the pair is control against both, the 2×2 uses all, so twice the planned users."""
    cells = Cells(neither="control", codebook="new_codes", model="new_model", both="treatment")
    shares = dict.fromkeys(cells.arms, 0.25)
    users = simulated_users(40_000, seed=3, shares=shares, new_codes=0.3, lift=0.3)
    found = read_out(plan(cells=cells, shares=shares), users, days=14)
    assert found.attribution is not None
    assert found.primary is not None

    assert found.attribution == attribute(users, PURCHASES, cells, alpha=0.05, tuned_for=40_000)
    assert found.primary.users == pytest.approx(20_000, abs=500)


def test_an_experiment_without_users_is_hidden_not_an_error() -> None:
    """The first morning has nothing to show."""
    found = read_out(PLAN, simulated_users(2, seed=4).clear(), days=0)

    assert found.users == {"control": 0, "treatment": 0}
    assert "no user was followed for 7 days yet" in found.trust[0].sentence
    assert "It shows once they are there" in found.decision.sentence


def test_a_column_that_is_not_there_is_named() -> None:
    """The plan's slice was never written into the table."""
    with pytest.raises(UsageError, match="lacks new_user, which the plan of codes reads"):
        read_out(PLAN, simulated_users(2000).drop("new_user"), days=14)


def test_equal_users_give_equal_digits() -> None:
    """Read twenty times, the same table gives the same JSON to the last digit, whatever the threads did."""
    users = simulated_users(8_000, lift=0.2, seed=1)

    assert len({read_out(PLAN, users, days=14).model_dump_json() for _ in range(20)}) == 1
