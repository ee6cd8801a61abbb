"""A/A draws of users without an effect claim no more than is promised, and a hash that is not one is found out."""

import polars as pl
import pytest

from sidrec.experiment.same import Same, same
from sidrec.release.buckets import point_of
from tests.experiment_world import plan, simulated_users

USERS = simulated_users(2000, seed=5)


def arms_of(salt: str) -> list[str]:
    return ["treatment" if point_of(user, salt) > 0.5 else "control" for user in USERS["user_id"]]


@pytest.fixture(scope="module")
def found() -> Same:
    return same(USERS, plan(), arms_of, draws=200)


def test_nothing_is_found_where_nothing_is(found: Same) -> None:
    """Of 200 draws, one look claims within the 99 % bounds of 5 %, the always-valid interval seldom or never."""
    assert 2 <= found.one_look.count <= 18
    assert found.always_valid.count <= 2
    assert found.sample_ratio.count == 0
    assert found.holds
    assert found.one_look.share < found.one_look.upper_bound < 0.15


def test_cuped_s_reduction_is_that_of_the_past(found: Same) -> None:
    """Over all draws it is the squared correlation of metric and past."""
    correlation = USERS.select(pl.corr("purchases", "past")).item()

    assert found.variance_reduction == pytest.approx(correlation**2, abs=0.01)


def test_arms_that_hang_on_the_outcome_are_found_out() -> None:
    """A draw that sends buyers to the treatment is called what it is."""
    buyers = ["treatment" if bought else "control" for bought in USERS["purchases"] > 0]
    value = same(USERS, plan(), lambda salt: buyers, draws=20)

    assert not value.holds
    assert value.one_look.share == 1.0
    assert "do not trust" in value.sentence
