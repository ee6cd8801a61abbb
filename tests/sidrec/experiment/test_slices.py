"""Slices are corrected for their number."""

import polars as pl
import pytest
from statsmodels.stats.multitest import multipletests

from sidrec.experiment.slices import by_slice, holm
from tests.experiment_world import plan, simulated_users


def test_holm_s_own_table() -> None:
    """Worked by hand: .01·4, .02·3, .03·2 and .04·1, each at least the one before."""
    adjusted = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})

    assert adjusted == pytest.approx({"c": 0.06, "a": 0.04, "d": 0.06, "b": 0.06})
    assert list(adjusted) == ["c", "a", "d", "b"]


def test_holm_agrees_with_statsmodels() -> None:
    """Ties and values that reach 1 included."""
    p_values = [0.5, 0.001, 0.001, 0.9, 0.02, 1.0]

    assert list(holm(dict(enumerate(p_values))).values()) == pytest.approx(
        list(multipletests(p_values, method="holm")[1])
    )


def test_an_effect_in_one_slice_is_found_there_alone() -> None:
    """New users gain by half, the others nothing."""
    users = simulated_users(20_000, seed=1)
    gain = (pl.col("arm") == "treatment") & pl.col("new_user")
    users = users.with_columns(purchases=pl.col("purchases") * pl.when(gain).then(1.5).otherwise(1.0))
    results = {one.value: one for one in by_slice(plan(slices=("new_user",)), users)}

    assert results["True"].differs
    assert not results["False"].differs
    assert results["True"].users + results["False"].users == 20_000


def test_a_small_slice_shows_no_effect_and_still_counts() -> None:
    """Three of 4,000 users get no interval; the other slice pays for two."""
    users = simulated_users(4000, seed=2).with_columns(country=pl.when(pl.int_range(pl.len()) < 3).then(1).otherwise(2))
    small, large = by_slice(plan(slices=("country",)), users)
    [alone] = by_slice(plan(slices=("country",)), users.filter(pl.col("country") == 2))
    assert large.effect is not None
    assert alone.effect is not None

    assert (small.users, small.effect, small.adjusted_p) == (3, None, None)
    assert large.effect.always_valid[0] < alone.effect.always_valid[0]


def test_a_plan_without_slices_has_none() -> None:
    """Nothing is looked at that was not planned."""
    assert by_slice(plan(), simulated_users(100)) == ()
