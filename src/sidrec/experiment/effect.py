"""What an arm changed against another: absolute and relative, for one look at a fixed date and for every look."""

from collections.abc import Mapping
from math import sqrt
from statistics import NormalDist

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from sidrec.experiment.arms import ArmMean, arm_means
from sidrec.experiment.plan import Metric
from sidrec.experiment.sequence import always_valid_p, half_width_at

Interval = tuple[float, float]


class Effect(BaseModel):
    """Treatment against control in one metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    control: float = Field(description="Mean of the control, after CUPED.")
    treatment: float = Field(description="Mean of the treatment, after CUPED.")
    difference: float = Field(description="Treatment minus control.")
    error: float = Field(ge=0, description="Standard error of the difference.")
    users: int = Field(description="Users of both arms with a value.")
    interval: Interval = Field(description="Holds for one look at a date fixed before; never to be peeked at.")
    always_valid: Interval = Field(description="Holds at every look.")
    relative: float | None = Field(description="Difference over the control's mean; None unless that is above zero.")
    relative_interval: Interval | None = Field(description="One look; None while the control's mean may be zero.")
    relative_always_valid: Interval | None = Field(description="Every look; None while the mean may be zero.")
    p_value: float = Field(ge=0, le=1, description="Always valid.")
    variance_reduction: float = Field(description="Share of the squared error that CUPED took away.")
    better: str = Field(description="`up` or `down`: the direction that is good.")

    @property
    def gain(self) -> Interval | None:
        """Always-valid interval of the relative change in the good direction."""
        if self.relative_always_valid is None or self.better == "up":
            return self.relative_always_valid
        low, high = self.relative_always_valid
        return -high, -low

    @property
    def spread(self) -> float:
        """Standard error times the root of the users: what one user adds, whatever their number."""
        return self.error * sqrt(self.users)


def effect(
    users: pl.DataFrame, metric: Metric, *, control: str, treatment: str, alpha: float, tuned_for: int
) -> Effect:
    """Return the treatment's effect on a metric, from one row a user.

    Args:
        tuned_for: users of both arms at which the always-valid interval is tightest, fixed before the first look.
    """
    means = arm_means(users, metric, (control, treatment))
    return effect_of_means(means[control], means[treatment], metric, alpha=alpha, tuned_for=tuned_for)


def effect_of_means(control: ArmMean, treatment: ArmMean, metric: Metric, *, alpha: float, tuned_for: int) -> Effect:
    """Return the effect from the arms' means and variances."""
    total = control.users + treatment.users
    once = NormalDist().inv_cdf(1 - alpha / 2)
    ever = half_width_at(total, tuned_for=tuned_for, alpha=alpha)
    difference, error = contrast({"c": control, "t": treatment}, {"c": -1.0, "t": 1.0})
    adjusted = control.squared_error + treatment.squared_error
    plain = control.plain_variance / control.users + treatment.plain_variance / treatment.users
    return Effect(
        metric=metric.name,
        control=control.mean,
        treatment=treatment.mean,
        difference=difference,
        error=error,
        users=total,
        interval=around(difference, once * error),
        always_valid=around(difference, ever * error),
        relative=difference / control.mean if control.mean > 0 else None,
        relative_interval=relative_interval(control, treatment, once),
        relative_always_valid=relative_interval(control, treatment, ever),
        p_value=p_of(difference, error, total, alpha=alpha, tuned_for=tuned_for),
        variance_reduction=1 - adjusted / plain if plain > 0 else 0.0,
        better=metric.better,
    )


def contrast(means: Mapping[str, ArmMean], weights: Mapping[str, float]) -> tuple[float, float]:
    """Return Σ weight · mean over independent arms and its standard error."""
    value = sum(weight * means[arm].mean for arm, weight in weights.items())
    return value, sqrt(sum(weight**2 * means[arm].squared_error for arm, weight in weights.items()))


def around(value: float, reach: float) -> Interval:
    """Return value ± reach."""
    return value - reach, value + reach


def p_of(difference: float, error: float, users: int, *, alpha: float, tuned_for: int) -> float:
    """Return the always-valid p-value of a difference; without any noise it is 0 or 1."""
    if error == 0:
        return float(difference == 0)
    return always_valid_p(difference / error, users, tuned_for=tuned_for, alpha=alpha)


def relative_interval(control: ArmMean, treatment: ArmMean, reach: float) -> Interval | None:
    """Return every relative change r at which treatment − (1 + r)·control is within `reach` standard errors of zero.

    It agrees with the absolute interval about zero, and with a test of any margin: a margin lies outside exactly when
    the linear contrast rejects it. None where the control's mean is not surely above zero.

    Source: Fieller, "Some problems in interval estimation" (JRSS B 16, 1954).
    """
    control_reach, treatment_reach = reach**2 * control.squared_error, reach**2 * treatment.squared_error
    # (t − q c)² ≤ reach² (V_t + q² V_c) in q = 1 + r is a·q² − 2·b·q + d ≤ 0.
    a = control.mean**2 - control_reach
    b = control.mean * treatment.mean
    d = treatment.mean**2 - treatment_reach
    if control.mean <= 0 or a <= 0:
        return None
    root = sqrt(max(b * b - a * d, 0.0))
    return (b - root) / a - 1, (b + root) / a - 1
