"""Means, ratios, CUPED and relative intervals agree with hand formulas, a bootstrap and tea-tasting."""

from math import sqrt

import numpy as np
import polars as pl
import pytest
import tea_tasting as tt

from sidrec.errors import UsageError
from sidrec.experiment.arms import ArmMean, arm_means
from sidrec.experiment.effect import Effect, effect, effect_of_means, relative_interval
from sidrec.experiment.plan import Metric
from sidrec.experiment.sequence import half_width_at
from tests.experiment_world import PURCHASES, RATE, simulated_users

ADJUSTED_RATE = RATE.model_copy(update={"covariate": "past"})


def found(users: pl.DataFrame, metric: Metric) -> Effect:
    return effect(users, metric, control="control", treatment="treatment", alpha=0.05, tuned_for=4000)


@pytest.mark.parametrize(
    ("metric", "peer"),
    [
        (Metric(name="m", numerator="purchases"), tt.Mean("purchases", use_t=False)),
        (PURCHASES, tt.Mean("purchases", "past", use_t=False)),
        (RATE, tt.RatioOfMeans("purchases", "requests", use_t=False)),
        (ADJUSTED_RATE, tt.RatioOfMeans("purchases", "requests", "past", use_t=False)),
    ],
)
def test_agrees_with_tea_tasting(metric: Metric, peer: tt.RatioOfMeans) -> None:
    """Means, difference and the one-look interval are those of the library whose moments are read."""
    users = simulated_users(4000, lift=0.1, seed=1)
    ours, theirs = found(users, metric), peer.analyze(users, "control", "treatment", "arm")

    assert (ours.control, ours.treatment) == pytest.approx((theirs.control, theirs.treatment))
    assert ours.interval == pytest.approx((theirs.effect_size_ci_lower, theirs.effect_size_ci_upper))


def test_cuped_is_the_hand_formula() -> None:
    """Y − θ(X − X̄) with θ = cov(X, Y)/var(X) over all users; its variance falls by the squared correlation."""
    users = simulated_users(3000, seed=2)
    y, x = users["purchases"].to_numpy(), users["past"].to_numpy()
    adjusted = y - np.cov(x, y)[0, 1] / x.var(ddof=1) * (x - x.mean())
    treated = users["arm"].to_numpy() == "treatment"
    own, other = adjusted[treated], adjusted[~treated]
    result = found(users, PURCHASES)

    assert result.difference == pytest.approx(own.mean() - other.mean())
    assert result.error == pytest.approx(sqrt(own.var(ddof=1) / len(own) + other.var(ddof=1) / len(other)))
    assert result.variance_reduction == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=0.02)
    assert result.variance_reduction > 0.1


def test_a_ratio_s_error_is_that_of_resampled_users() -> None:
    """The delta method's standard error equals a bootstrap over users; one over requests would be too small."""
    users = simulated_users(2000, seed=3)
    result = found(users, RATE)
    generator = np.random.default_rng(0)
    ratios = []
    for arm in ("control", "treatment"):
        rows = users.filter(pl.col("arm") == arm).select("purchases", "requests").to_numpy()
        drawn = rows[generator.integers(0, len(rows), size=(2000, len(rows)))].sum(axis=1)
        ratios.append(drawn[:, 0] / drawn[:, 1])

    # 2,000 resamples know a standard deviation to ±1.6 %; three of those.
    assert result.error == pytest.approx((ratios[1] - ratios[0]).std(), rel=0.05)


def test_the_relative_interval_covers_as_a_bootstrap_does() -> None:
    """Fieller's limits are the percentiles of resampled treatment / control − 1."""
    generator = np.random.default_rng(1)
    control, treatment = generator.exponential(1.0, 400), generator.exponential(1.2, 400)
    means = [ArmMean(v.mean(), v.var(ddof=1), v.var(ddof=1), 400) for v in (control, treatment)]
    drawn = [v[generator.integers(0, 400, size=(20_000, 400))].mean(axis=1) for v in (control, treatment)]
    expected = np.percentile(drawn[1] / drawn[0] - 1, [2.5, 97.5])

    assert relative_interval(means[0], means[1], 1.96) == pytest.approx(tuple(expected), abs=0.012)


def test_a_margin_lies_at_the_limit_exactly_when_its_contrast_does() -> None:
    """At the lower limit r, treatment − (1 + r)·control is `reach` standard errors above zero, to the last digit."""
    control, treatment = ArmMean(2.0, 9.0, 9.0, 500), ArmMean(2.2, 12.0, 12.0, 800)
    limits = relative_interval(control, treatment, 3.0)
    assert limits is not None
    low, high = limits

    def errors_from_zero(r: float) -> float:
        error = sqrt(treatment.squared_error + (1 + r) ** 2 * control.squared_error)
        return (treatment.mean - (1 + r) * control.mean) / error

    assert (errors_from_zero(low), errors_from_zero(high)) == pytest.approx((3.0, -3.0))


def test_a_control_that_may_be_zero_has_no_relative_interval() -> None:
    """A share of nothing is not a number."""
    near_zero = ArmMean(0.1, 9.0, 9.0, 100)
    result = effect_of_means(near_zero, near_zero, RATE, alpha=0.05, tuned_for=100)

    assert result.relative_always_valid is None
    assert result.gain is None


def test_the_always_valid_interval_is_the_same_error_with_another_reach() -> None:
    """Both intervals are around the same difference; the one for every look is the wider one."""
    result = found(simulated_users(4000, seed=4), RATE)
    reach = half_width_at(4000, tuned_for=4000, alpha=0.05)

    assert result.always_valid == pytest.approx(
        (result.difference - reach * result.error, result.difference + reach * result.error)
    )
    assert result.always_valid[0] < result.interval[0]


def test_gain_turns_a_metric_that_should_fall() -> None:
    """Where down is better, a fall by 10 to 20 % is a gain of 10 to 20 %."""
    fallen = effect_of_means(
        ArmMean(1.0, 1.0, 1.0, 10_000),
        ArmMean(0.8, 1.0, 1.0, 10_000),
        RATE.model_copy(update={"better": "down"}),
        alpha=0.05,
        tuned_for=20_000,
    )
    assert fallen.gain is not None
    assert fallen.relative_always_valid is not None

    assert fallen.gain[0] > 0.1
    assert fallen.gain == (-fallen.relative_always_valid[1], -fallen.relative_always_valid[0])


def test_users_without_a_value_are_left_out() -> None:
    """A missing purchase is not a purchase of zero."""
    users = simulated_users(1000, seed=5)
    some = users.with_columns(pl.when(pl.col("past") > 3).then(None).otherwise(pl.col("purchases")).alias("purchases"))

    assert found(some, RATE) == found(users.filter(pl.col("past") <= 3), RATE)


def test_values_without_spread_give_an_interval_without_width() -> None:
    """Equal users leave nothing to doubt, and no division by zero."""
    users = pl.DataFrame({"arm": ["control", "control", "treatment", "treatment"], "x": [1, 1, 2, 2]})
    result = found(users, Metric(name="x", numerator="x"))

    assert result.always_valid == (1.0, 1.0)
    assert result.p_value == 0.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"arm": ["control", "control", "treatment"], "x": [1, 2, 3], "n": [1, 1, 1]}, "fewer than two users"),
        ({"arm": ["control"] * 2 + ["treatment"] * 2, "x": [1, 2, 3, 4], "n": [0, 0, 1, 1]}, "not above zero"),
        ({"arm": ["control"] * 2 + ["treatment"] * 2, "x": [1.0, 2.0, 3.0, np.inf], "n": [1, 1, 1, 1]}, "not a finite"),
    ],
)
def test_rows_that_hold_no_mean_are_refused(rows: dict[str, list[object]], message: str) -> None:
    """One user has no variance, a ratio has a denominator, a value is a number."""
    with pytest.raises(UsageError, match=message):
        arm_means(pl.DataFrame(rows), Metric(name="x", numerator="x", denominator="n"), ("control", "treatment"))
