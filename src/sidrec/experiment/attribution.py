"""Whether the codebook or the model made the difference, from four arms that cross the two."""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from sidrec.experiment.arms import arm_means
from sidrec.experiment.effect import Interval, around, contrast
from sidrec.experiment.plan import Cells, Metric
from sidrec.experiment.sequence import half_width_at


class Part(BaseModel):
    """One cause's share of the whole change, absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    change: float
    error: float = Field(ge=0)
    always_valid: Interval = Field(description="Holds at every look, together with those of the other parts.")

    @property
    def shown(self) -> bool:
        """The interval leaves zero out."""
        low, high = self.always_valid
        return low > 0 or high < 0


class Attribution(BaseModel):
    """The change from neither to both: codebook + model, exactly; the interaction says how far they need each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    means: dict[str, float] = Field(description="Mean of each cell, after CUPED.")
    codebook: Part
    model: Part
    interaction: Part
    sentence: str


def attribute(users: pl.DataFrame, metric: Metric, cells: Cells, *, alpha: float, tuned_for: int) -> Attribution:
    """Return how much of the change from neither to both is the codebook's and how much the model's.

    Main effects are averages over the other factor, so they sum to the whole change; the interaction is the codebook's
    effect under the new model less that under the old one. Each interval is at α/3, so the three hold together.

    Source: contrasts of a 2×2 factorial, Box, Hunter & Hunter, *Statistics for Experimenters*, chapter 5; the two
    main effects are the Shapley values of the two factors.
    """
    means = arm_means(users, metric, cells.arms)
    neither, codebook, model, both = cells.arms
    total = sum(mean.users for mean in means.values())
    reach = half_width_at(total, tuned_for=tuned_for, alpha=alpha / 3)

    def part(name: str, weights: dict[str, float]) -> Part:
        change, error = contrast(means, weights)
        return Part(name=name, change=change, error=error, always_valid=around(change, reach * error))

    parts = (
        part("codebook", {codebook: 0.5, neither: -0.5, both: 0.5, model: -0.5}),
        part("model", {model: 0.5, neither: -0.5, both: 0.5, codebook: -0.5}),
        part("interaction", {both: 1.0, model: -1.0, codebook: -1.0, neither: 1.0}),
    )
    return Attribution(
        metric=metric.name,
        means={arm: mean.mean for arm, mean in means.items()},
        codebook=parts[0],
        model=parts[1],
        interaction=parts[2],
        sentence=_sentence(metric.name, means[both].mean - means[neither].mean, *parts),
    )


def _sentence(metric: str, whole: float, codebook: Part, model: Part, interaction: Part) -> str:
    causes = ", ".join(
        f"{one.name} {one.change:+.4g} [{one.always_valid[0]:+.4g}, {one.always_valid[1]:+.4g}]"
        for one in (codebook, model)
    )
    reading = {
        (True, True): "both are shown",
        (True, False): "only the codebook's is shown",
        (False, True): "only the model's is shown",
        (False, False): "neither is shown yet",
    }[codebook.shown, model.shown]
    together = "; they change each other's effect, so read the four means" if interaction.shown else ""
    return f"{metric}: of {whole:+.4g}, {causes}; {reading}{together}."
