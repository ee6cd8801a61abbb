"""Everybody gets the same list: items by the number of fit baskets, of the whole period or of its last 28 days."""

from dataclasses import dataclass

import numpy as np

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores, scaled


@dataclass(frozen=True, slots=True)
class GlobalPopularity:
    """Items by their fit baskets."""

    def fit(self, data: NextBasket) -> Scorer:
        """Return a scorer whose rows are all equal."""
        return _SameForAll(data.popularity.astype(np.float64))


@dataclass(frozen=True, slots=True)
class RecentPopularity:
    """Items by their baskets of the last 28 days; global popularity orders the rest."""

    global_weight: float = 0.001

    def fit(self, data: NextBasket) -> Scorer:
        """Return a scorer whose rows are all equal."""
        return _SameForAll(data.recent_popularity + self.global_weight * scaled(data.popularity))


@dataclass(frozen=True, slots=True)
class _SameForAll:
    scores: Scores

    def __call__(self, rows: Ints) -> Scores:
        return np.tile(self.scores, (len(rows), 1))
