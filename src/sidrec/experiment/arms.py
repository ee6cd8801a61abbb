"""What one arm's users did in one metric: a mean, and the variance that one user adds to it.

Ratios of means get their variance by the delta method with users as units, because a user's requests are not
independent; CUPED takes out what the user's past foretold. Moments are read by tea-tasting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from math import isfinite
from operator import add

import polars as pl
from tea_tasting.aggr import Aggregates, read_aggregates

from sidrec.errors import UsageError
from sidrec.experiment.plan import Metric

ARM = "arm"
"""Column of the users' table that names the user's arm."""


@dataclass(frozen=True, slots=True)
class ArmMean:
    """A metric of one arm; the mean's squared standard error is `variance / users`."""

    mean: float
    variance: float
    plain_variance: float
    """What `variance` would be without CUPED."""
    users: int

    @property
    def squared_error(self) -> float:
        """Variance of the mean."""
        return self.variance / self.users


def arm_means(users: pl.DataFrame, metric: Metric, arms: Sequence[str]) -> dict[str, ArmMean]:
    """Return the metric of each arm, adjusted by CUPED where the metric names a covariate.

    Rows without a value in one of the metric's columns are left out; the trust box counts them.

    Raises:
        UsageError: an arm has fewer than two users, or a denominator that sums to zero.

    Source: delta method, Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics" (KDD 2018);
    CUPED, Deng, Xu, Kohavi & Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data" (WSDM 2013), θ from the users of all arms.
    """
    columns = list(metric.columns)
    table = users.filter(pl.col(ARM).is_in(arms)).drop_nulls(columns).select(ARM, pl.col(columns).cast(pl.Float64))
    counts = dict(table.group_by(ARM).len().iter_rows())
    if few := [arm for arm in arms if counts.get(arm, 0) < 2]:
        raise UsageError(f"{metric.name}: fewer than two users with a value in arm {', '.join(few)}")
    # Arm by arm: a group-by adds up in the order in which its threads finish, so that the last digit would vary.
    moments: dict[str, Aggregates] = {
        arm: read_aggregates(
            table.filter(pl.col(ARM) == arm),
            None,
            has_count=True,
            mean_cols=columns,
            var_cols=columns,
            cov_cols=list(combinations(columns, 2)),
        )
        for arm in arms
    }
    for column in {metric.denominator, metric.denominator_covariate} - {None}:
        if empty := [arm for arm in arms if not moments[arm].mean(column) > 0]:
            raise UsageError(f"{metric.name}: {column} is not above zero on average in arm {', '.join(empty)}")
    return _adjusted(metric, {arm: moments[arm] for arm in arms})


def _adjusted(metric: Metric, moments: dict[str, Aggregates]) -> dict[str, ArmMean]:
    own = metric.numerator, metric.denominator
    past = metric.covariate, metric.denominator_covariate
    everybody = reduce(add, moments.values())
    spread = everybody.ratio_var(*past) if metric.covariate else 0.0
    theta = everybody.ratio_cov(*own, *past) / spread if spread > 0 else 0.0
    means = {}
    for arm, moment in moments.items():
        mean = moment.mean(own[0]) / moment.mean(own[1])
        plain = variance = float(moment.ratio_var(*own))
        if theta:
            mean -= theta * (
                moment.mean(past[0]) / moment.mean(past[1]) - everybody.mean(past[0]) / everybody.mean(past[1])
            )
            variance = plain + theta**2 * moment.ratio_var(*past) - 2 * theta * moment.ratio_cov(*own, *past)
        if not (isfinite(mean) and isfinite(variance)):
            raise UsageError(f"{metric.name}: a value in arm {arm} is not a finite number")
        # Rounding can leave a variance a hair below zero where the covariate explains everything.
        means[arm] = ArmMean(float(mean), max(float(variance), 0.0), plain, int(moment.count()))
    return means
