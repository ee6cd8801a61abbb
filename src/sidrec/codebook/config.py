"""How a codebook lives on: when new items are appended, when codewords follow, and what a refresh may break.

Torch-free: recipes load where torch is not installed.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verb = Literal["fit", "none", "append", "refresh"]


class AlarmConfig(BaseModel):
    """When the codebook no longer spans the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_new_items: int = Field(20, ge=1, description="New items below which their errors say nothing.")
    residual_ratio: float = Field(1.5, gt=0, description="Mean error of new items over that of fitted ones.")


class LifecycleConfig(AlarmConfig):
    """What a run does with the champion's codebook."""

    verb: Literal["auto", "fit", "none", "append", "refresh"] = Field(
        "auto", description="auto lets the run decide; the others force it."
    )
    max_appended_share: float = Field(
        0.10, gt=0, le=1, description="Share of items appended since the last fit or refresh that asks for a refresh."
    )
    churn_budget: float = Field(
        0.05, ge=0, le=1, description="Largest share of traffic whose semantic ID a refresh may move."
    )
    epsilon: float = Field(
        0.02, ge=0, description="A move pays when it lowers an item's error by more than this share of its length."
    )
    over_budget: Literal["defer", "retrain"] = Field(
        "defer",
        description="Moves beyond the budget: deferred to the next refresh, or all made and the model trained anew.",
    )
    refit_iterations: int = Field(20, ge=1)
