"""Item-to-item models: a score is the history vector times an item-by-item matrix.

Axes: `user` or `basket` rows of the fit matrix, `item` catalogue.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg, sparse

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores

Unit = Literal["user", "basket"]


def fit_matrix(data: NextBasket, unit: Unit) -> sparse.csr_matrix:
    """Return the binary `[user, item]` or `[basket, item]` matrix of the fit baskets."""
    baskets = data.fit_baskets
    matrix = data.incidence(baskets)
    if unit == "basket":
        return matrix
    owner = data.basket_user[baskets]
    shape = (len(data.user_ids), len(baskets))
    owned = sparse.csr_matrix((np.ones(len(baskets)), (owner, np.arange(len(baskets)))), shape=shape)
    users = (owned @ matrix).tocsr()
    users.data[:] = 1.0
    return users


def history_weights(data: NextBasket, half_life: float | None) -> sparse.csr_matrix:
    """Return `[row, item]`: 1 for every item of the history, or its decayed count where a half-life is given."""
    history = data.history(half_life=half_life)
    if half_life is None:
        history.data[:] = 1.0
    return history


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """Cosine of item columns, shrunk, nearest neighbours only."""

    unit: Unit = "user"
    neighbours: int = 101
    """The published figures keep what reaches the 101st value (the 201st of the basket variant)."""
    shrink: float = 10.0
    half_life: float | None = 60.0

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer of the cosine matrix."""
        matrix = fit_matrix(data, self.unit)
        together = (matrix.T @ matrix).toarray()
        norm = np.sqrt(together.diagonal())
        cosine = together / (np.outer(norm, norm) + self.shrink)
        np.fill_diagonal(cosine, 0.0)
        kept = min(self.neighbours, data.num_items)
        # A neighbour list belongs to the recommended item: only its nearest items vote for it.
        kth = -np.partition(-cosine, kept - 1, axis=0)[kept - 1]
        cosine[cosine < kth] = 0.0
        return _Linear(history_weights(data, self.half_life), sparse.csr_matrix(cosine))


@dataclass(frozen=True, slots=True)
class EASE:
    """EASE (arXiv 1905.03375, equation 8): ridge regression of every item on all the others, in closed form."""

    unit: Unit = "user"
    penalty: float = 200.0
    half_life: float | None = None

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer of B = I - P diag(1 / P_ii), P = (X'X + penalty I)^-1."""
        matrix = fit_matrix(data, self.unit)
        gram = (matrix.T @ matrix).toarray()
        gram[np.diag_indices_from(gram)] += self.penalty
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
        weights = inverse / -inverse.diagonal()
        np.fill_diagonal(weights, 0.0)
        return _Linear(history_weights(data, self.half_life), weights)


@dataclass(frozen=True, slots=True)
class _Linear:
    history: sparse.csr_matrix
    weights: sparse.csr_matrix | Scores

    def __call__(self, rows: Ints) -> Scores:
        scores = self.history[rows] @ self.weights
        return np.asarray(scores.toarray() if sparse.issparse(scores) else scores)
