"""Whether the traffic can be trusted, asked before any result: one red answer hides the result.

Each check says green, red or unmeasured. Unmeasured hides nothing, but the read-out names it.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import chi2_contingency

from sidrec.experiment.arms import ARM
from sidrec.experiment.effect import effect
from sidrec.experiment.plan import Metric, Plan
from sidrec.experiment.sample_ratio import SRM_LIMIT, sample_ratio_p

MAX_LOST = 0.01
MAX_MISSING = 0.05
Light = Literal["green", "red", "unmeasured"]


class TrustCheck(BaseModel):
    """One question about the traffic and its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    light: Light
    observed: float | None = Field(default=None, description="A p-value, a share or a count; the sentence says which.")
    sentence: str


def trust_box(plan: Plan, users: pl.DataFrame, *, lost: Mapping[str, float] | None = None) -> tuple[TrustCheck, ...]:
    """Return the checks in the order in which a reader should worry.

    Args:
        users: one row a user; the columns `arms`, `misplaced`, `foreign`, `requests`, `latency_ms` of `users.by_user`
            are checked where they are there.
        lost: share of the answers that the log lacks, by arm, as `users.lost_answers` counts it.
    """
    return (
        sample_ratio(plan, users),
        stickiness(users),
        arm_purity(users),
        bundle_purity(users),
        exposure_loss(lost),
        missing_outcomes(plan, users),
        sample_size(plan, users),
        latency_parity(plan, users),
    )


def sample_ratio(plan: Plan, users: pl.DataFrame) -> TrustCheck:
    """Return red where the arms' users contradict the shares that the revision gave them."""
    counts = _counts(plan, users)
    total = sum(counts.values())
    if strangers := users.height - total:
        return _check(
            "sample_ratio", "red", strangers, f"{strangers:,} users are in an arm that the plan does not name"
        )
    if total == 0:
        # Who was exposed counts once followed for the plan's days; until then nothing is wrong.
        return _check("sample_ratio", "unmeasured", None, f"no user was followed for {plan.window_days} days yet")
    if len(counts) == 1:
        return _check("sample_ratio", "unmeasured", None, "one arm has no ratio")
    p_value = float(sample_ratio_p(np.array([*counts.values()], float), np.array([*plan.shares.values()])))
    seen = ", ".join(f"{arm} {count:,} (planned {plan.shares[arm] * total:,.0f})" for arm, count in counts.items())
    light: Light = "red" if p_value < SRM_LIMIT else "green"
    return _check("sample_ratio", light, p_value, f"users by arm: {seen}; p = {p_value:.2g}, red below {SRM_LIMIT}")


def stickiness(users: pl.DataFrame) -> TrustCheck:
    """Return red where a user saw two arms: neither arm's outcome is theirs."""
    if "arms" not in users.columns:
        return _check("stickiness", "unmeasured", None, "the table does not say how many arms a user saw")
    moved = users.filter(pl.col("arms") > 1).height
    return _check("stickiness", "red" if moved else "green", moved, f"{moved:,} users saw more than one arm")


def arm_purity(users: pl.DataFrame) -> TrustCheck:
    """Return red where an arm answered a user whom the salted hash gives to another, or to none."""
    if "misplaced" not in users.columns:
        return _check("arm_purity", "unmeasured", None, "the table does not say which arm each user belongs to")
    misplaced = int(users["misplaced"].sum())
    light: Light = "red" if misplaced else "green"
    return _check("arm_purity", light, misplaced, f"{misplaced:,} answers of an arm that is not the user's")


def bundle_purity(users: pl.DataFrame) -> TrustCheck:
    """Return red where an answer came from another bundle than its arm's."""
    if "foreign" not in users.columns:
        return _check("bundle_purity", "unmeasured", None, "the table does not say which bundles answered")
    foreign = int(users["foreign"].sum())
    return _check("bundle_purity", "red" if foreign else "green", foreign, f"{foreign:,} answers of a foreign bundle")


def exposure_loss(lost: Mapping[str, float] | None) -> TrustCheck:
    """Return red where an arm's log lacks more than 1 % of the requests that its servers answered."""
    if not lost:
        return _check("exposure_loss", "unmeasured", None, "the servers' own counts of answers were not given")
    arm, worst = max(lost.items(), key=lambda one: abs(one[1]))
    light: Light = "red" if abs(worst) > MAX_LOST else "green"
    seen = f"the log lacks {worst:.2%} of the answers in arm {arm}, red above {MAX_LOST:.0%}"
    return _check("exposure_loss", light, worst, seen)


def missing_outcomes(plan: Plan, users: pl.DataFrame) -> TrustCheck:
    """Return red where too many users lack a value, or where one arm's users lack it more often."""
    columns = list(dict.fromkeys(column for metric in plan.metrics for column in metric.columns))
    lacking = users.select(ARM, missing=pl.any_horizontal(pl.col(columns).is_null()))
    table = lacking.group_by(ARM).agg(pl.col("missing").sum(), there=(~pl.col("missing")).sum())
    missing = int(table["missing"].sum())
    share = missing / users.height if users.height else 0.0
    uneven = 1.0
    if table.height > 1 and missing and table["there"].sum():
        uneven = float(chi2_contingency(table.select("missing", "there").to_numpy()).pvalue)
    light: Light = "red" if share > MAX_MISSING or uneven < SRM_LIMIT else "green"
    return _check(
        "missing_outcomes",
        light,
        share,
        f"{share:.2%} of users lack a value (red above {MAX_MISSING:.0%}), alike in all arms with p = {uneven:.2g}",
    )


def sample_size(plan: Plan, users: pl.DataFrame) -> TrustCheck:
    """Return red where an arm is so small that the intervals' normal approximation is not yet true."""
    counts = _counts(plan, users)
    arm = min(counts, key=lambda one: counts[one])
    light: Light = "red" if counts[arm] < plan.min_users else "green"
    return _check(
        "sample_size", light, counts[arm], f"the smallest arm, {arm}, has {counts[arm]:,} users of {plan.min_users:,}"
    )


def latency_parity(plan: Plan, users: pl.DataFrame) -> TrustCheck:
    """Return red where the arms' mean latencies surely differ by more than the plan tolerates."""
    if not {"latency_ms", "requests"} <= set(users.columns):
        return _check("latency_parity", "unmeasured", None, "the table has no latencies")
    counts = _counts(plan, users)
    if min(counts[plan.control], counts[plan.treatment]) < plan.min_users:
        return _check("latency_parity", "unmeasured", None, "too few users to compare latencies")
    metric = Metric(name="latency", numerator="latency_ms", denominator="requests", better="down")
    found = effect(
        users,
        metric,
        control=plan.control,
        treatment=plan.treatment,
        alpha=plan.alpha,
        tuned_for=plan.planned_users,
    )
    low, high = found.relative_always_valid or (float("-inf"), float("inf"))
    light: Light = "red" if low > plan.max_slower or high < -plan.max_slower else "green"
    return _check(
        "latency_parity",
        light,
        found.relative,
        f"mean latency {found.control:.1f} ms and {found.treatment:.1f} ms ({plan.treatment}), "
        f"red when surely more than {plan.max_slower:.0%} apart",
    )


def _counts(plan: Plan, users: pl.DataFrame) -> dict[str, int]:
    found = dict(users.group_by(ARM).len().iter_rows())
    return {arm: int(found.get(arm, 0)) for arm in plan.shares}


def _check(name: str, light: Light, observed: float | None, sentence: str) -> TrustCheck:
    return TrustCheck(name=name, light=light, observed=observed, sentence=f"{sentence}.")
