"""How many users an experiment needs, and what a number of users can show, known before it starts."""

from math import ceil, sqrt
from statistics import NormalDist

import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from tea_tasting import RatioOfMeans

from sidrec.experiment.arms import ARM, arm_means
from sidrec.experiment.plan import Metric
from sidrec.experiment.sequence import half_width_at

POWER = 0.80


class Size(BaseModel):
    """What a metric needs to show an effect, from users as they were before the experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    mean: float
    minimum_effect: float = Field(description="As a share of the mean.")
    fixed_users: int = Field(description="Users of both arms for one look at a date fixed before.")
    always_valid_users: int = Field(description="Users of both arms for looks on any day.")
    variance_reduction: float = Field(description="Share of the variance that CUPED takes away.")
    sentence: str


def size(
    before: pl.DataFrame,
    metric: Metric,
    *,
    minimum_effect: float,
    alpha: float = 0.05,
    power: float = POWER,
    treatment_share: float = 0.5,
) -> Size:
    """Return the users that show `minimum_effect` with the wanted power.

    The always-valid number supposes intervals that are tuned for that number.

    Args:
        before: one row a user in the metric's columns, from a period as long as the experiment.
        treatment_share: the treatment's share of the users of both arms.

    Source: the fixed number is tea-tasting's (normal approximation of the two-sided test).
    """
    arm = arm_means(before.with_columns(pl.lit("all").alias(ARM)), metric, ["all"])["all"]
    change = minimum_effect * arm.mean
    [fixed] = _test(metric, alpha, power, treatment_share, rel_effect_size=minimum_effect).solve_power(before, "n_obs")
    # Tuned for the users it is read at, the interval's half width is the same number of errors for any number of them.
    reach = half_width_at(1, tuned_for=1, alpha=alpha) + NormalDist().inv_cdf(power)
    always = ceil((reach * spread(arm.variance, treatment_share) / change) ** 2)
    return Size(
        metric=metric.name,
        mean=arm.mean,
        minimum_effect=minimum_effect,
        fixed_users=int(fixed.n_obs),
        always_valid_users=always,
        variance_reduction=1 - arm.variance / arm.plain_variance if arm.plain_variance > 0 else 0.0,
        sentence=(
            f"{metric.name}: a change of {minimum_effect:.1%} of {arm.mean:.4g} is found {power:.0%} of the time by "
            f"{fixed.n_obs:,} users read once, or by {always:,} users read on any day."
        ),
    )


def minimum_detectable_effect(
    before: pl.DataFrame,
    metric: Metric,
    *,
    users: int,
    alpha: float = 0.05,
    power: float = POWER,
    treatment_share: float = 0.5,
) -> float:
    """Return the relative change that so many users of both arms, read once, show with the wanted power."""
    [found] = _test(metric, alpha, power, treatment_share, n_obs=users).solve_power(before, "rel_effect_size")
    return float(found.rel_effect_size)


def spread(variance: float, treatment_share: float) -> float:
    """Return the difference's standard error times the root of the users of both arms."""
    return sqrt(variance / treatment_share + variance / (1 - treatment_share))


def _test(metric: Metric, alpha: float, power: float, treatment_share: float, **known: float) -> RatioOfMeans:
    return RatioOfMeans(
        metric.numerator,
        metric.denominator,
        metric.covariate,
        metric.denominator_covariate,
        alpha=alpha,
        power=power,
        ratio=treatment_share / (1 - treatment_share),
        use_t=False,
        **known,
    )
