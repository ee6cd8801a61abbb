"""The effect on parts of the users, corrected for how many parts were looked at."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from sidrec.experiment.arms import ARM
from sidrec.experiment.effect import Effect, effect
from sidrec.experiment.plan import Plan

Key = TypeVar("Key", bound=Hashable)


class SliceResult(BaseModel):
    """The primary metric on the users of one value of one column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    value: str
    users: int
    effect: Effect | None = Field(description="None where an arm has too few users to show an interval.")
    adjusted_p: float | None = Field(description="Always valid and corrected by Holm over all slices.")
    differs: bool = Field(description="The slice has an effect, at the plan's α over all slices together.")


def by_slice(plan: Plan, users: pl.DataFrame) -> tuple[SliceResult, ...]:
    """Return the primary metric on every slice of the plan; users without a value in the column are in none.

    An interval of a slice holds together with those of the other slices (α over their number, Bonferroni); the
    adjusted p-value is Holm's, which claims no less. A slice that is too small to show counts among them, so that
    its turn to be shown changes nothing.
    """
    parts = {
        (column, str(value)): part
        for column in plan.slices
        for (value,), part in users.drop_nulls(column).sort(column).group_by(column, maintain_order=True)
    }
    effects = {
        key: effect(
            part,
            plan.primary,
            control=plan.control,
            treatment=plan.treatment,
            alpha=plan.alpha / len(parts),
            tuned_for=plan.planned_users,
        )
        for key, part in parts.items()
        if _smallest_arm(plan, part) >= plan.min_users
    }
    adjusted = holm({key: effects[key].p_value if key in effects else 1.0 for key in parts})
    return tuple(
        SliceResult(
            column=key[0],
            value=key[1],
            users=part.height,
            effect=effects.get(key),
            adjusted_p=adjusted[key] if key in effects else None,
            differs=adjusted[key] <= plan.alpha,
        )
        for key, part in parts.items()
    )


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return each p-value corrected so that claims below α are all true with probability 1 − α.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian J. of Statistics 6, 1979).
    """
    adjusted: dict[Key, float] = {}
    highest = 0.0
    for rank, (key, p_value) in enumerate(sorted(p_values.items(), key=lambda one: one[1])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p_values}


def _smallest_arm(plan: Plan, part: pl.DataFrame) -> int:
    counts: dict[str, int] = dict(part.drop_nulls(list(plan.primary.columns)).group_by(ARM).len().iter_rows())
    return min(counts.get(plan.control, 0), counts.get(plan.treatment, 0))
