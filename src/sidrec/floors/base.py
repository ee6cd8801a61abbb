"""What every floor baseline is: settings that fit on the baskets before the gate and then score rows."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sidrec.evaluation.protocol import Ints, NextBasket

Scores = NDArray[np.float64]


class Scorer(Protocol):
    """A fitted floor."""

    def __call__(self, rows: Ints) -> Scores:
        """Return `[row, item]` scores of these rows of the protocol, from their whole histories."""
        ...


class FloorModel(Protocol):
    """An unfitted floor: a frozen dataclass of its settings."""

    def fit(self, data: NextBasket) -> Scorer:
        """Return the scorer learnt from the fit baskets alone."""
        ...


def scaled(counts: NDArray[np.integer]) -> Scores:
    """Return counts over their maximum; zeros stay zeros."""
    return np.asarray(counts / max(1, counts.max(initial=0)), dtype=np.float64)
