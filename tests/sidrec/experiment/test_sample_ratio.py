"""A mismatch of the sample ratio is found when it matters, and seldom when it is not there."""

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from sidrec.experiment.sample_ratio import SRM_LIMIT, sample_ratio_p

HALVES = np.array([0.5, 0.5])


def test_unequal_shares_of_three_arms_are_scipy_s_chi_square() -> None:
    """Observed against share times total, two degrees of freedom."""
    expected = chisquare([520, 310, 170], [500, 300, 200]).pvalue

    assert sample_ratio_p(np.array([520.0, 310, 170]), np.array([0.5, 0.3, 0.2])) == pytest.approx(expected)


def test_one_percent_of_one_arm_lost_is_found_at_a_million_users_an_arm() -> None:
    """Of 1,000 experiments with that loss at least .95 are red; of 20,000 intact ones, .0005 within its bound.

    With a million users in both arms together the power is .94, so the arms are counted here.
    """
    generator = np.random.default_rng(0)

    def red(users: int, kept: float, experiments: int) -> int:
        treated = generator.binomial(users, 0.5, experiments)
        counts = np.stack([users - treated, generator.binomial(treated, kept)], axis=1).astype(float)
        return int((sample_ratio_p(counts, HALVES) < SRM_LIMIT).sum())

    assert red(2_000_000, 0.99, 1000) >= 950
    assert red(1_000_000, 0.99, 1000) == pytest.approx(937, abs=25)
    assert red(2_000_000, 1.0, 20_000) <= binom.ppf(0.99, 20_000, SRM_LIMIT)
