"""What follows what: transition counts from basket to next basket, backed off to recent popularity.

Axes: `before` item of a basket, `after` item of the same user's next basket.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores


@dataclass(frozen=True, slots=True)
class Markov:
    """P(after | before) averaged over the items of the last basket, or of the whole decayed history.

    A transition is counted for every pair of items, and `before`'s total is its number of baskets that have a next one,
    so P sums to the mean size of a next basket: an expected count, which ranks alike.
    """

    back_off_mass: float = 30.0
    """Pseudo-transitions to recent popularity that every item starts with."""
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
    """`[row, before]`: weight of each context item over its number of transitions."""
    counts: sparse.csr_matrix
    back_off: Scores
    """`[row]`: what the row gives to recent popularity."""
    recent: Scores

    def __call__(self, rows: Ints) -> Scores:
        scores = (self.context[rows] @ self.counts).toarray()
        return np.asarray(scores + self.back_off[rows, None] * self.recent)
