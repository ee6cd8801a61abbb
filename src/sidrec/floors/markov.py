"""What follows what: transitions from basket to next basket, backed off to recent popularity.

Axes: `before` item of a basket, `after` item of the same user's next basket.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores

TransitionUnit = Literal["rate", "count"]


@dataclass(frozen=True, slots=True)
class Markov:
    """What followed the items of the last basket, or of the whole decayed history.

    As a rate it is P(after | before) averaged over those items. A transition is counted for every pair of items, and
    `before`'s total is its number of baskets that have a next one, so P sums to the mean size of a next basket: an
    expected count, which ranks alike. As a count it is the sum of their transitions.
    """

    unit: TransitionUnit = "rate"
    back_off_mass: float = 30.0
    """Pseudo-transitions to recent popularity: of every item for rates, of the whole row for counts."""
    half_life: float | None = None
    """None looks at the last basket only; else the history's baskets count half after so many days."""

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer from the consecutive fit baskets of every user."""
        fit = data.fit_baskets
        follows = np.flatnonzero(data.basket_user[fit[1:]] == data.basket_user[fit[:-1]])
        before, after = data.incidence(fit[follows]), data.incidence(fit[follows + 1])
        counts = (before.T @ after).tocsr()
        total = np.asarray(before.sum(axis=0)).ravel()
        recent = data.recent_popularity / max(1, data.recent_popularity.sum())
        context = data.last_basket() if self.half_life is None else data.history(half_life=self.half_life)
        if self.unit == "count":
            return _Transitions(context, counts, np.full(data.num_rows, self.back_off_mass), recent)
        share = sparse.diags(1 / np.maximum(np.asarray(context.sum(axis=1)).ravel(), 1e-12)) @ context
        inverse = 1 / (total + self.back_off_mass)
        return _Transitions(
            context=(share @ sparse.diags(inverse)).tocsr(),
            counts=counts,
            back_off=self.back_off_mass * np.asarray(share @ inverse).ravel(),
            recent=recent,
        )


@dataclass(frozen=True, slots=True)
class _Transitions:
    context: sparse.csr_matrix
    """`[row, before]`: weight of each context item, for rates over its number of transitions."""
    counts: sparse.csr_matrix
    back_off: Scores
    """`[row]`: what the row gives to recent popularity."""
    recent: Scores

    def __call__(self, rows: Ints) -> Scores:
        scores = (self.context[rows] @ self.counts).toarray()
        return np.asarray(scores + self.back_off[rows, None] * self.recent)
