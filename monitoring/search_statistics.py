"""What searches said of themselves in one week, by the names that their system gives: means and variety.

A system without such numbers has no rows here. Which system serves is not asked.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from monitoring import aggregate
from monitoring.codebook_drift import entropy_bits


@dataclass(frozen=True, slots=True)
class SearchStatistic:
    """One number of the searches behind a week's answers."""

    name: str
    requests: int
    mean: float
    entropy: float
    """Bits, of its values in steps of a tenth: how many different ones there are, 0 for one."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self)


def statistic(name: str, counts: Mapping[str, int]) -> SearchStatistic:
    """Return the mean and the entropy of values that occur `counts` times each."""
    values = np.array([float(key) for key in counts])
    weights = np.array(list(counts.values()), dtype=np.float64)
    mean = float((values * weights).sum() / weights.sum()) if weights.sum() else 0.0
    return SearchStatistic(name, int(weights.sum()), mean, entropy_bits(weights))


def statistics(table: pl.DataFrame) -> list[SearchStatistic]:
    """Return the numbers in a table of counts (`aggregate`), by name."""
    kinds = sorted(kind for kind in table["kind"].unique() if kind.startswith(aggregate.SEARCH))
    return [statistic(kind.removeprefix(aggregate.SEARCH), aggregate.counts_of(table, kind)) for kind in kinds]
