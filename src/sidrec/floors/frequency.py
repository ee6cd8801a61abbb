"""A user gets what they bought most often; the places left are filled by popularity."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores, scaled

Fill = Literal["recent", "global"]


@dataclass(frozen=True, slots=True)
class PersonalFrequency:
    """TopFreq: history baskets with the item plus a fill that never outweighs one basket.

    The defaults are RP-TopFreq, the floor that no model of the study beat on all items.
    """

    fill: Fill = "recent"
    fill_weight: float = 0.5
    half_life: float | None = None
    """Days after which a basket counts half; None counts baskets."""
    global_weight: float = 0.001

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer; nothing but the fill is learnt."""
        fill = scaled(data.popularity)
        if self.fill == "recent":
            fill = scaled(data.recent_popularity) + self.global_weight * fill
        return _Filled(data.history(half_life=self.half_life), self.fill_weight * fill)


@dataclass(frozen=True, slots=True)
class LastBasket:
    """The items of the last basket, then recent popularity."""

    fill_weight: float = 1e-4
    global_weight: float = 0.001

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer; nothing but the fill is learnt."""
        fill = scaled(data.recent_popularity) + self.global_weight * scaled(data.popularity)
        return _Filled(data.last_basket(), self.fill_weight * fill)


@dataclass(frozen=True, slots=True)
class _Filled:
    counts: sparse.csr_matrix
    fill: Scores

    def __call__(self, rows: Ints) -> Scores:
        return np.asarray(self.counts[rows].toarray() + self.fill)
