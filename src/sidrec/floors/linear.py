"""Item-to-item models: a score is the history vector times an item-by-item matrix.

Axes: `user` or `basket` rows of the fit matrix, `item` catalogue.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from sidrec.evaluation.protocol import Ints, NextBasket
from sidrec.floors.base import Scorer, Scores

Unit = Literal["user", "basket"]
Precision = Literal["float64", "float32"]


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
    """Return `[row, item]`: 1 for every item of the history, or its decayed count where a half-life is given.

    An infinite half-life counts baskets: an item that the history holds twice weighs 2.
    """
    history = data.history(half_life=half_life)
    if half_life is None:
        history.data[:] = 1.0
    return history


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """Cosine of item columns, shrunk, nearest neighbours only."""

    unit: Unit = "user"
    neighbours: int | None = 101
    """None keeps all. The published figures keep what reaches the 101st value (201st of the basket variant)."""
    shrink: float = 10.0
    half_life: float | None = 60.0

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer of the cosine matrix."""
        matrix = fit_matrix(data, self.unit)
        cosine = (matrix.T @ matrix).tocoo()
        norm = np.sqrt(cosine.diagonal())
        cosine.data /= norm[cosine.row] * norm[cosine.col] + self.shrink
        cosine.setdiag(0.0)
        if self.neighbours is not None and self.neighbours < data.num_items:
            cosine = _nearest(cosine.toarray(), self.neighbours)
        return _Linear(history_weights(data, self.half_life), cosine.tocsr())


def _nearest(cosine: Scores, kept: int) -> sparse.csr_matrix:
    """Return what reaches the `kept`-th value of its column: only an item's nearest items vote for it."""
    kth = -np.partition(-cosine, kept - 1, axis=0)[kept - 1]
    cosine[cosine < kth] = 0.0
    return sparse.csr_matrix(cosine)


@dataclass(frozen=True, slots=True)
class EASE:
    """EASE (arXiv 1905.03375, equation 8): ridge regression of every item on all the others, in closed form."""

    unit: Unit = "user"
    penalty: float = 200.0
    half_life: float | None = None
    precision: Precision = "float64"
    """Of the inversion: float32 halves the memory and the time, which a catalogue of 10,000 items feels."""

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer of B = I - P diag(1 / P_ii), P = (X'X + penalty I)^-1."""
        matrix = fit_matrix(data, self.unit).astype(self.precision)
        gram = (matrix.T @ matrix).toarray()
        gram[np.diag_indices_from(gram)] += self.penalty
        # LAPACK gives columns first, of which a product with sparse rows would make its own copy every time.
        weights = np.ascontiguousarray(linalg.inv(gram, overwrite_a=True, check_finite=False))
        weights /= -weights.diagonal()
        np.fill_diagonal(weights, 0.0)
        # Of one precision with the history, or every product would copy the table.
        return _Linear(history_weights(data, self.half_life).astype(self.precision), weights)


@dataclass(frozen=True, slots=True)
class _Linear:
    history: sparse.csr_matrix
    weights: sparse.csr_matrix | NDArray[np.floating]

    def __call__(self, rows: Ints) -> Scores:
        scores = self.history[rows] @ self.weights
        return np.asarray(scores.toarray() if sparse.issparse(scores) else scores, dtype=np.float64)
