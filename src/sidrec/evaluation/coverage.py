"""What a model's lists look like as a whole: how much of the catalogue they show, and how popular it is."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.evaluation.slices import head_items


class Coverage(BaseModel):
    """Catalogue coverage and popularity bias of the first ten places."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distinct_items: int = Field(description="Items listed for at least one row.")
    coverage: float = Field(description="The same over the catalogue.")
    gini: float = Field(description="0 if every item is listed equally often, towards 1 if a few take all places.")
    head_share: float = Field(description="Share of places that go to the most popular fifth of the catalogue.")
    mean_popularity: float = Field(description="Mean fit baskets of a listed item.")


def coverage(lists: Ints, data: NextBasket, *, k: int = 10) -> Coverage:
    """Return the coverage of the first k places of `[row, rank]` lists, -1 left out."""
    listed = lists[:, :k]
    return _coverage(listed[listed >= 0], data)


def target_profile(items: Ints, data: NextBasket) -> Coverage:
    """Return the same numbers of what users really bought: what an unbiased list would look like."""
    return _coverage(items[items >= 0], data)


def _coverage(places: Ints, data: NextBasket) -> Coverage:
    counts = np.bincount(places, minlength=data.num_items)
    total = max(1, int(counts.sum()))
    distinct = int((counts > 0).sum())
    return Coverage(
        distinct_items=distinct,
        coverage=distinct / data.num_items,
        gini=gini(counts),
        head_share=float(counts[head_items(data) == 1].sum() / total),
        mean_popularity=float((counts * data.popularity).sum() / total),
    )


def gini(counts: Ints) -> float:
    """Return the Gini coefficient of non-negative counts; 0 where all are 0."""
    total = counts.sum()
    if total == 0:
        return 0.0
    ordered = np.sort(counts)
    n = len(ordered)
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)
