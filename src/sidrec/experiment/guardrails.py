"""What the treatment must not harm: each guardrail passes, fails or is not yet decided."""

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from sidrec.experiment.effect import Effect, effect
from sidrec.experiment.plan import Guardrail, Plan


class GuardrailResult(BaseModel):
    """One guardrail's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effect: Effect
    margin: float = Field(description="Tolerated harm, as a share of the control's mean.")
    result: Literal["pass", "fail", "inconclusive"]
    sentence: str


def judge(plan: Plan, users: pl.DataFrame) -> tuple[GuardrailResult, ...]:
    """Return every guardrail of the plan, judged by its always-valid interval."""
    return tuple(
        non_inferior(
            guardrail,
            effect(
                users,
                guardrail.metric,
                control=plan.control,
                treatment=plan.treatment,
                alpha=plan.alpha,
                tuned_for=plan.planned_users,
            ),
        )
        for guardrail in plan.guardrails
    )


def non_inferior(guardrail: Guardrail, found: Effect) -> GuardrailResult:
    """Return pass when the harm is surely below the margin, fail when it is surely above, else inconclusive.

    Source: non-inferiority by an interval and a margin, Piaggio et al., "Reporting of Noninferiority and Equivalence
    Randomized Trials" (JAMA 308, 2012).
    """
    margin = guardrail.margin
    result: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if found.gain is None:
        return GuardrailResult(
            effect=found,
            margin=margin,
            result=result,
            sentence=f"{found.metric}: the control's mean is not yet surely above zero, so no share of it is judged.",
        )
    low, high = found.gain
    if low > -margin:
        result, reading = "pass", f"the harm is surely below {margin:.1%}"
    elif high < -margin:
        result, reading = "fail", f"the harm is surely above {margin:.1%}"
    else:
        reading = f"a harm of {margin:.1%} is neither shown nor ruled out"
    shown_low, shown_high = found.relative_always_valid or (low, high)
    return GuardrailResult(
        effect=found,
        margin=margin,
        result=result,
        sentence=f"{found.metric} changes by {found.relative:+.2%} [{shown_low:+.2%}, {shown_high:+.2%}]; {reading}.",
    )
