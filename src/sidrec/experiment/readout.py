"""What an experiment's owner reads: trust first, then the effect, guardrails, slices, attribution, and one sentence.

Where a trust check is red nothing below it exists in the result, so no page and no JSON can show it.
"""

from collections.abc import Mapping
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from sidrec.errors import UsageError
from sidrec.experiment.arms import ARM
from sidrec.experiment.attribution import Attribution, attribute
from sidrec.experiment.decision import Decision, decide
from sidrec.experiment.effect import Effect, effect
from sidrec.experiment.guardrails import GuardrailResult, judge
from sidrec.experiment.plan import Plan
from sidrec.experiment.slices import SliceResult, by_slice
from sidrec.experiment.trust import TrustCheck, trust_box


class Readout(BaseModel):
    """One look at an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    experiment: str
    days: float = Field(description="Days since the first exposure of the phase.")
    users: dict[str, int] = Field(description="Users of each arm whose outcome is final.")
    trust: tuple[TrustCheck, ...]
    trusted: bool = Field(description="No check is red; otherwise the result is hidden.")
    primary: Effect | None
    guardrails: tuple[GuardrailResult, ...]
    slices: tuple[SliceResult, ...]
    attribution: Attribution | None = Field(description="None without a 2×2.")
    decision: Decision


def read_out(plan: Plan, users: pl.DataFrame, *, days: float, lost: Mapping[str, float] | None = None) -> Readout:
    """Return what the users of an experiment show on this day; it may be asked on every day.

    Args:
        users: one row a user, as `users.by_user` returns it, with the columns of the plan's metrics and slices.
        days: since the first exposure of the phase.
        lost: share of the answers that the log lacks, by arm.

    Raises:
        UsageError: the table lacks a column of the plan.
    """
    wanted = {ARM, *plan.slices, *(column for metric in plan.metrics for column in metric.columns)}
    if lacking := sorted(wanted - set(users.columns)):
        raise UsageError(
            f"the users' table lacks {', '.join(lacking)}, which the plan of {plan.experiment} reads",
            next_step="add the columns, or plan with those that are there: " + ", ".join(users.columns),
        )
    trust = trust_box(plan, users, lost=lost)
    red = [check for check in trust if check.light == "red"]
    found: dict[str, int] = dict(users.group_by(ARM).len().iter_rows())
    counts = {arm: found.get(arm, 0) for arm in plan.shares}
    if red:
        return Readout(
            experiment=plan.experiment,
            days=days,
            users=counts,
            trust=trust,
            trusted=False,
            primary=None,
            guardrails=(),
            slices=(),
            attribution=None,
            decision=Decision.hidden(red),
        )
    primary = effect(
        users,
        plan.primary,
        control=plan.control,
        treatment=plan.treatment,
        alpha=plan.alpha,
        tuned_for=plan.planned_users,
    )
    guardrails = judge(plan, users)
    return Readout(
        experiment=plan.experiment,
        days=days,
        users=counts,
        trust=trust,
        trusted=True,
        primary=primary,
        guardrails=guardrails,
        slices=by_slice(plan, users),
        attribution=_attribution(plan, users),
        decision=decide(plan, primary, guardrails, days=days),
    )


def _attribution(plan: Plan, users: pl.DataFrame) -> Attribution | None:
    if plan.cells is None:
        return None
    pair = plan.shares[plan.control] + plan.shares[plan.treatment]
    crossed = sum(plan.shares[arm] for arm in plan.cells.arms)
    return attribute(
        users, plan.primary, plan.cells, alpha=plan.alpha, tuned_for=round(plan.planned_users * crossed / pair)
    )
