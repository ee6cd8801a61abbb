"""A/A on real users: drawn into arms again and again with nothing to tell the arms apart, as the real hash draws them.

What the intervals promise is then counted on this installation's own metric, skew and all.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import beta

from sidrec.experiment.arms import ARM
from sidrec.experiment.effect import effect
from sidrec.experiment.plan import Plan
from sidrec.experiment.sample_ratio import SRM_LIMIT, sample_ratio_p


class FalseAlarms(BaseModel):
    """How often something was seen where there was nothing, with the 99 % binomial upper bound of the share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    share: float
    upper_bound: float


class Same(BaseModel):
    """Many A/A draws of the same users, each read once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    users: int = Field(description="Users of control and treatment in the first draw.")
    draws: int
    one_look: FalseAlarms = Field(description="Intervals of one look that leave zero out: α of them should.")
    always_valid: FalseAlarms = Field(description="Always-valid ones: read once, far fewer.")
    sample_ratio: FalseAlarms = Field(description="Red sample ratios.")
    variance_reduction: float = Field(description="Mean share of the variance that CUPED took away.")
    holds: bool = Field(description="No share is surely above what it promises.")
    sentence: str


def same(before: pl.DataFrame, plan: Plan, arms_of: Callable[[str], Sequence[str]], *, draws: int) -> Same:
    """Return what A/A tests of the plan's primary metric claim.

    Args:
        before: one row a user, from a time without an effect.
        arms_of: the arm of each row's user under a salt, as the server would choose it.
    """
    pair = (plan.control, plan.treatment)
    shares = np.array([plan.shares[arm] for arm in pair])
    found, ratios, sizes = [], [], []
    for number in range(draws):
        drawn = before.with_columns(pl.Series(ARM, arms_of(f"same/{number}"), dtype=pl.String))
        table = drawn.filter(pl.col(ARM).is_in(pair))
        counts = np.array([(table[ARM] == arm).sum() for arm in pair], dtype=np.float64)
        ratios.append(float(sample_ratio_p(counts, shares / shares.sum())))
        sizes.append(table.height)
        names = {"control": plan.control, "treatment": plan.treatment}
        found.append(effect(table, plan.primary, alpha=plan.alpha, tuned_for=max(2, table.height), **names))
    one_look = _alarms([not one.interval[0] <= 0 <= one.interval[1] for one in found])
    always = _alarms([not one.always_valid[0] <= 0 <= one.always_valid[1] for one in found])
    red = _alarms([p_value < SRM_LIMIT for p_value in ratios])
    limits = ((one_look, plan.alpha), (always, plan.alpha), (red, SRM_LIMIT))
    holds = all(beta.ppf(0.01, one.count, draws - one.count + 1) <= limit for one, limit in limits if one.count)
    reduction = float(np.mean([one.variance_reduction for one in found]))
    return Same(
        metric=plan.primary.name,
        users=sizes[0],
        draws=draws,
        one_look=one_look,
        always_valid=always,
        sample_ratio=red,
        variance_reduction=reduction,
        holds=holds,
        sentence=(
            f"{draws:,} A/A draws of {sizes[0]:,} users: one look claims an effect in {one_look.share:.1%} "
            f"(promised {plan.alpha:.0%}), the always-valid interval in {always.share:.1%}, the sample ratio is red in "
            f"{red.share:.2%}; CUPED takes away {reduction:.1%} of the variance. "
            f"{'The promises hold.' if holds else 'More than promised: do not trust the intervals on this metric.'}"
        ),
    )


def _alarms(claims: list[bool]) -> FalseAlarms:
    count, draws = sum(claims), len(claims)
    return FalseAlarms(
        count=count,
        share=count / draws,
        upper_bound=float(beta.ppf(0.99, count + 1, draws - count)) if count < draws else 1.0,
    )
