"""What an experiment is about, frozen before its first user: metric, guardrails, least effect, size and stop rule."""

import re
from math import fsum
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidrec.decoding.exploration import Exploration
from sidrec.exclusion import Exclusion
from sidrec.settings import read_settings


class Metric(BaseModel):
    """One number per arm: the mean of a column over users, or the ratio of two columns' means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="As the read-out shows it, e.g. purchases per request.")
    numerator: str = Field(min_length=1, description="Column of the users' table.")
    denominator: str | None = Field(default=None, description="Column to divide by; None: one per user.")
    covariate: str | None = Field(default=None, description="The numerator before the experiment, for CUPED.")
    denominator_covariate: str | None = Field(default=None, description="The denominator before the experiment.")
    better: Literal["up", "down"] = Field(default="up", description="The direction that is good for users.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.denominator_covariate and not self.covariate:
            raise ValueError(f"{self.name}: a denominator's covariate needs a numerator's covariate beside it")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the metric reads, each once."""
        named = (self.numerator, self.denominator, self.covariate, self.denominator_covariate)
        return tuple(dict.fromkeys(column for column in named if column is not None))


class Guardrail(BaseModel):
    """A metric that the treatment must not harm by more than a margin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric
    margin: float = Field(gt=0, lt=1, description="Largest tolerated harm, as a share of the control's mean.")


class Cells(BaseModel):
    """The four arms of a 2×2, two codebooks times two models; in each bundle the model was fitted to its own codes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neither: str = Field(description="Arm with the control's codebook and the control's model.")
    codebook: str = Field(description="Arm with the new codebook and the control's model, refitted to it.")
    model: str = Field(description="Arm with the control's codebook and the new model, fitted to it.")
    both: str = Field(description="Arm with the new codebook and the new model.")

    @property
    def arms(self) -> tuple[str, str, str, str]:
        """The cells in the order of their fields."""
        return self.neither, self.codebook, self.model, self.both


class Plan(BaseModel):
    """One experiment; nothing in it may change once a user was exposed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(min_length=1)
    control: str
    treatment: str
    shares: dict[str, float] = Field(description="Share of users that the revision gives each arm; they sum to 1.")
    bundles: dict[str, str] = Field(default={}, description="Bundle id of each challenger; `ab start` needs them.")
    exclusion: Exclusion | None = Field(default=None, description="Whom the experiment may have; None is everybody.")
    exploration: Exploration | None = Field(default=None, description="Users, of no arm, whose answers are drawn.")
    primary: Metric
    minimum_effect: float = Field(gt=0, description="Least gain worth shipping, as a share of the control's mean.")
    guardrails: tuple[Guardrail, ...] = ()
    slices: tuple[str, ...] = Field(default=(), description="Columns whose values part the users, e.g. new_user.")
    cells: Cells | None = Field(default=None, description="Where four arms tell the codebook from the model.")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Chance of a false claim that the intervals allow.")
    planned_users: int = Field(ge=2, description="Users of both arms at which the intervals are tightest.")
    max_users: int = Field(ge=2, description="Users of both arms at which the experiment ends without a winner.")
    min_users: int = Field(default=500, ge=2, description="Users an arm or a slice needs before its interval is shown.")
    min_days: int = Field(
        default=7, ge=1, description="Days before anything ships: a whole week has every weekday once."
    )
    window_days: int = Field(default=7, ge=1, description="Days a user is followed from their first exposure.")
    past_days: int = Field(default=28, ge=1, description="Days before the experiment that the column `past` counts.")
    max_slower: float = Field(
        default=0.10, gt=0, description="Tolerated difference of the arms' mean latency, as a share."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = fsum(self.shares.values())
        if abs(total - 1) > 1e-9 or min(self.shares.values(), default=0) <= 0:
            raise ValueError(f"shares are above 0 and sum to 1, these are {self.shares}")
        if self.control == self.treatment:
            raise ValueError(f"control and treatment are two arms, both are {self.control!r}")
        named = (self.control, self.treatment, *(self.cells.arms if self.cells else ()))
        if unknown := sorted({arm for arm in named if arm not in self.shares}):
            raise ValueError(f"arms without a share: {', '.join(unknown)}; the shares name {', '.join(self.shares)}")
        if unknown := sorted(set(self.bundles) - set(self.shares)):
            raise ValueError(f"bundles of no arm: {', '.join(unknown)}; the shares name {', '.join(self.shares)}")
        if wrong := [name for name in self.bundles.values() if not re.fullmatch(r"b-[0-9a-f]{12}", name)]:
            raise ValueError(f"a bundle's id is b- and 12 hex digits, seen {', '.join(wrong)}")
        if self.cells and len(set(self.cells.arms)) != 4:
            raise ValueError(f"a 2×2 has four arms, seen {', '.join(self.cells.arms)}")
        if self.max_users < self.planned_users:
            raise ValueError(f"max_users {self.max_users} is below planned_users {self.planned_users}")
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The primary metric and the guardrails' metrics."""
        return (self.primary, *(guardrail.metric for guardrail in self.guardrails))


def load_plan(path: Path) -> Plan:
    """Return the plan in a YAML (or JSON) file.

    Raises:
        UsageError: the file is not there, is no YAML, or is no plan; each key that is wrong is named.
    """
    return read_settings(path, Plan, "plan", next_step="see docs/experimentation.md")
