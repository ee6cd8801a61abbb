"""Rows of length one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit_rows(vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return rows of length 1, in the type that they came in; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[Any] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return units
