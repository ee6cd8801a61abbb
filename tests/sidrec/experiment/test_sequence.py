"""Intervals that may be read every day keep their promise, where plain ones do not."""

from math import exp, sqrt

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, norm

from sidrec.experiment.sequence import always_valid_p, half_width, half_width_at, mixture_precision, users_until

ALPHA = 0.05
DAYS, PER_DAY = 28, 200
TUNED_FOR = DAYS * PER_DAY


def every_look(lift: float, experiments: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences, standard errors and users of each day of simulated experiments with skewed spendings.

    An arm's users spend nothing with probability .7 and a log-normal amount else; the treatment's amounts are
    1 + lift times as high. `[experiment, day]`, and the users `[day]`.
    """
    generator = np.random.default_rng(seed)
    shape = (experiments, DAYS, PER_DAY // 2)
    means, variances = [], []
    users = np.arange(1, DAYS + 1) * PER_DAY // 2
    for factor in (1.0, 1.0 + lift):
        spent = factor * np.exp(0.8 * generator.standard_normal(shape)) * (generator.random(shape) < 0.3)
        sums, squares = spent.sum(axis=2).cumsum(axis=1), (spent**2).sum(axis=2).cumsum(axis=1)
        means.append(sums / users)
        variances.append((squares - sums**2 / users) / (users - 1))
    errors = np.sqrt((variances[0] + variances[1]) / users)
    return means[1] - means[0], errors, 2 * users


def upper_bound(count: int, n: int) -> float:
    """The 99 % binomial upper bound of a share."""
    return float(beta.ppf(0.99, count + 1, n - count))


def test_daily_peeking_claims_nothing_false_more_often_than_promised() -> None:
    """Of 2,000 A/A tests read daily, a share within α + .01 ever leaves zero out; of plain intervals far more do."""
    differences, errors, users = every_look(0.0, 2000, seed=1)
    z = np.abs(differences / errors)
    ever = (z > half_width(users.astype(float), tuned_for=TUNED_FOR, alpha=ALPHA)).any(axis=1)
    plain = (z > norm.ppf(1 - ALPHA / 2)).any(axis=1)

    assert upper_bound(int(ever.sum()), 2000) <= ALPHA + 0.01
    assert plain.mean() > 0.2


def test_the_interval_is_not_needlessly_wide() -> None:
    """The promise is used: with thousands of looks from early on, a good part of α is spent."""
    generator = np.random.default_rng(2)
    looks = np.arange(1, 20_001, dtype=float)
    reach = half_width(looks, tuned_for=500, alpha=ALPHA)
    z = generator.standard_normal((400, 20_000)).cumsum(axis=1) / np.sqrt(looks)
    share = float((np.abs(z) > reach).any(axis=1).mean())

    # 99.9 % binomial bounds of 400 draws at .03 to .05.
    assert 0.01 <= share <= 0.09


def test_a_known_effect_lies_in_the_interval_on_every_day() -> None:
    """In 1,000 experiments with a lift of 1 %, the true difference is in all 28 intervals at least 95 times in 100."""
    differences, errors, users = every_look(0.01, 1000, seed=3)
    truth = 0.01 * 0.3 * exp(0.8**2 / 2)
    reach = errors * half_width(users.astype(float), tuned_for=TUNED_FOR, alpha=ALPHA)
    missed = (np.abs(differences - truth) > reach).any(axis=1)

    assert upper_bound(int(missed.sum()), 1000) <= ALPHA + 0.01


@pytest.mark.parametrize(("z", "users"), [(0.0, 50), (1.5, 400), (3.2, 400), (-2.4, 9000)])
def test_the_p_value_is_one_over_the_mixed_likelihood_ratio(z: float, users: int) -> None:
    """The closed form equals the integral of the likelihood ratio over normally distributed effects."""
    precision = mixture_precision(1000, ALPHA)
    mean = z / sqrt(users)  # of unit-variance values

    def weighted(effect: float) -> float:
        return float(norm.pdf(effect, scale=sqrt(precision)) * exp(users * (effect * mean - effect**2 / 2)))

    ratio = quad(weighted, -2, 2, points=[mean], limit=500, epsabs=1e-12)[0]

    assert always_valid_p(z, users, tuned_for=1000, alpha=ALPHA) == pytest.approx(min(1.0, 1 / ratio), rel=1e-6)


@pytest.mark.parametrize("users", [3, 200, 1000, 50_000])
def test_p_is_alpha_at_the_interval_s_edge(users: int) -> None:
    """Interval and p-value are one statement."""
    edge = half_width_at(users, tuned_for=1000, alpha=ALPHA)

    assert always_valid_p(edge, users, tuned_for=1000, alpha=ALPHA) == pytest.approx(ALPHA)


def test_the_interval_is_tightest_where_it_is_tuned() -> None:
    """No other tuning gives a narrower interval at 1,000 users, and twice or half of it costs under 5 %."""
    widths = {tuned: half_width_at(1000, tuned_for=tuned, alpha=ALPHA) for tuned in (250, 500, 990, 1010, 2000, 4000)}
    least = half_width_at(1000, tuned_for=1000, alpha=ALPHA)

    assert least < min(widths.values())
    assert max(widths[500], widths[2000]) < 1.05 * least


@pytest.mark.parametrize("extra", [0.0, 0.84])
def test_users_until_is_the_first_number_that_is_narrow_enough(extra: float) -> None:
    """The bisection finds what a scan finds."""
    scan = np.arange(1, 4000, dtype=float)
    reach = (half_width(scan, tuned_for=900, alpha=ALPHA) + extra) * 2.0 / np.sqrt(scan)
    expected = int(scan[reach <= 0.2][0])

    assert users_until(0.2, 2.0, tuned_for=900, alpha=ALPHA, extra=extra) == expected
