"""The numbers of users that a plan names find the effect as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from sidrec.experiment.plan import Metric
from sidrec.experiment.sequence import half_width_at
from sidrec.experiment.size import minimum_detectable_effect, size, spread
from tests.experiment_world import PURCHASES, simulated_users

PLAIN = Metric(name="purchases", numerator="purchases")


def test_fixed_users_are_the_closed_form() -> None:
    """(1.96 + 0.84)² · (σ²/p + σ²/(1 − p)) / δ² users, at half and at a fifth of the traffic."""
    before = simulated_users(5000, seed=1)
    values = before["purchases"].to_numpy()
    for share in (0.5, 0.2):
        noise = values.var(ddof=1) * (1 / share + 1 / (1 - share))
        expected = (norm.ppf(0.975) + norm.ppf(0.8)) ** 2 * noise / (0.05 * values.mean()) ** 2
        result = size(before, PLAIN, minimum_effect=0.05, treatment_share=share)

        assert result.fixed_users == pytest.approx(expected, rel=1e-3)


def test_the_least_effect_inverts_the_users() -> None:
    """At the users that 5 % needs, 5 % is the least effect that shows."""
    before = simulated_users(5000, seed=2)
    users = size(before, PURCHASES, minimum_effect=0.05).fixed_users

    assert minimum_detectable_effect(before, PURCHASES, users=users) == pytest.approx(0.05, rel=1e-3)


def test_reading_on_any_day_costs_less_than_twice_the_users() -> None:
    """The price of peeking is known before the start, and CUPED pays a part of it back."""
    before = simulated_users(5000, seed=3)
    plain, adjusted = (size(before, metric, minimum_effect=0.05) for metric in (PLAIN, PURCHASES))

    assert 1.5 < plain.always_valid_users / plain.fixed_users < 2.0
    assert adjusted.always_valid_users == pytest.approx(
        (1 - adjusted.variance_reduction) * plain.always_valid_users, rel=0.01
    )
    assert f"{plain.always_valid_users:,} users read on any day" in plain.sentence


def test_always_valid_users_find_the_effect_four_times_in_five() -> None:
    """Simulated differences at that number leave zero out in about 80 of 100, read at that number only."""
    before = simulated_users(5000, seed=4)
    result = size(before, PLAIN, minimum_effect=0.05)
    users = result.always_valid_users
    error = spread(float(before["purchases"].to_numpy().var(ddof=1)), 0.5) / math.sqrt(users)
    drawn = np.random.default_rng(0).normal(0.05 * result.mean, error, 2000)
    found = drawn / error > half_width_at(users, tuned_for=users, alpha=0.05)

    # 99.9 % binomial bounds of 2,000 draws at 0.8.
    assert 0.77 <= found.mean() <= 0.83
