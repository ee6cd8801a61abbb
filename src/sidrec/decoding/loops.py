"""Compiled loops, and how they read a level's offsets.

Numba compiles on first use and keeps the machine code beside the source, so a server needs no compiler.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

# What a loop reads and writes; it is compiled for the exact types that it meets.
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Function = TypeVar("Function", bound=Callable[..., Any])

# The list of a level that has a table.
NO_LIST = np.zeros(0, dtype=np.int32)


def compiled(function: Function) -> Function:
    """Return the function compiled on first use, its machine code kept where that can be written."""
    try:
        return njit(cache=True, nogil=True)(function)  # type: ignore[return-value]
    except RuntimeError:
        # A tree that is read-only, and no NUMBA_CACHE_DIR: seconds at every start, the same answers.
        return njit(nogil=True)(function)  # type: ignore[return-value]


@compiled
def before(values: Ints, wanted: int) -> int:
    """Return how many of the sorted values are below."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def first_child(odd: Ints, first: Ints, listed: bool, place: int) -> Any:
    """Return a place's first child, as `Table` or `Exceptions` has it."""
    if not listed:
        return first[place]
    rank = before(odd, place)
    return place + first[rank] - odd[rank]


@compiled
def parent(odd: Ints, first: Ints, listed: bool, child: int) -> Any:
    """Return a child's place in the level above, as `Table` or `Exceptions` has it."""
    following = before(first, child + 1)
    if not listed:
        return following - 1
    single = child - first[following] + odd[following]
    return max(single, odd[following - 1]) if following > 0 else single
