"""The bootstrap resamples whole rows, is seeded, and agrees with a plain loop and with theory."""

import numpy as np
import pytest

from sidrec.evaluation.bootstrap import mean_interval, paired_difference, resampled_means


def test_means_equal_a_plain_loop_over_the_same_draws() -> None:
    """The count-matrix form gives what indexing and averaging gives."""
    values = np.random.default_rng(1).normal(size=(17, 3))
    means = resampled_means(values, resamples=100, seed=5, chunk=64)

    generator = np.random.default_rng(5)
    draws = np.concatenate([generator.integers(0, 17, size=(64, 17)), generator.integers(0, 17, size=(36, 17))])
    expected = np.stack([values[rows].mean(axis=0) for rows in draws])

    np.testing.assert_allclose(means, expected, atol=1e-12)


def test_every_metric_sees_the_same_rows() -> None:
    """A column and its double stay exactly doubled in every resample: the draw is shared."""
    values = np.random.default_rng(2).normal(size=50)
    means = resampled_means(np.stack([values, 2 * values], axis=1), resamples=200, seed=0)

    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0], atol=1e-12)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    """A report can be computed again to the last digit."""
    values = np.random.default_rng(3).normal(size=80)
    first = mean_interval(values, resamples=300, seed=0)

    assert first == mean_interval(values, resamples=300, seed=0)
    assert first != mean_interval(values, resamples=300, seed=1)


def test_interval_agrees_with_the_normal_approximation() -> None:
    """For many rows the percentile interval is mean ± 1.96 standard errors."""
    values = np.random.default_rng(4).normal(loc=0.3, scale=0.2, size=2000)
    low, high = mean_interval(values, resamples=2000, seed=0)

    error = 1.96 * values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - error, abs=0.0006)
    assert high == pytest.approx(values.mean() + error, abs=0.0006)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    """On 300 simulated evaluations of 60 rows the interval holds the true mean at its stated rate."""
    generator = np.random.default_rng(6)
    samples = generator.binomial(1, 0.4, size=(300, 60)).astype(float)
    covered = [low <= 0.4 <= high for low, high in (mean_interval(s, resamples=400, seed=0) for s in samples)]

    # 99.9 % binomial bounds of 300 draws at 0.95, widened below for the bootstrap's known small-n optimism.
    assert 0.89 <= np.mean(covered) <= 0.99


def test_pairing_cancels_what_rows_have_in_common() -> None:
    """Rows that differ wildly but favour the candidate by the same amount give an interval of that amount alone."""
    reference = np.random.default_rng(7).uniform(size=500)
    result = paired_difference(reference + 0.01, reference, resamples=500, seed=0)

    assert result.mean == pytest.approx(0.01)
    assert result.interval == pytest.approx((0.01, 0.01))
    assert result.row_sd == pytest.approx(0.0, abs=1e-12)


def test_relative_interval_divides_by_the_reference_of_the_same_resample() -> None:
    """A candidate that is 10 % better on every row is 10 % better in every resample, without width."""
    reference = np.random.default_rng(8).uniform(size=200)
    result = paired_difference(1.1 * reference, reference, resamples=300, seed=0)

    assert result.relative == pytest.approx(0.1)
    assert result.relative_interval == pytest.approx((0.1, 0.1))


def test_a_reference_of_zero_gives_finite_numbers() -> None:
    """Against a reference without any hit a gain reads +1, equality 0, so the report stays valid JSON."""
    zeros = np.zeros(30)

    assert paired_difference(zeros, zeros, resamples=100, seed=0).relative_interval == (0.0, 0.0)
    assert paired_difference(zeros + 0.1, zeros, resamples=100, seed=0).relative_interval == (1.0, 1.0)


def test_unequal_rows_are_refused() -> None:
    """Two models must be judged on the same rows."""
    with pytest.raises(ValueError, match="paired rows"):
        paired_difference(np.zeros(3), np.zeros(4), resamples=100, seed=0)
