"""The items of a catalogue in the order of their codes, and where each level's prefixes begin in it.

Axes: `item` catalogue rows, `level` coarsest first.
"""

import numpy as np
from numpy.typing import NDArray

from sidrec.data.catalog import PAD
from sidrec.errors import UsageError


def sorted_by_code(codes: NDArray[np.int32]) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """Return the items by rising codes, and for every level which of them begin another prefix than the item before.

    Raises:
        UsageError: two items share all codes, or a code is negative and not a `PAD` in the last level.
    """
    num_items, num_levels = codes.shape
    if num_items == 0 or num_levels == 0:
        raise UsageError(
            f"codes have shape {codes.shape}; a trie needs at least one item and one level",
            next_step="build it from the codes of a catalogue that has items",
        )
    lowest = codes.min(axis=0)
    if (lowest[:-1] < 0).any() or lowest[-1] < (PAD if num_levels > 1 else 0):
        raise UsageError(
            f"the lowest codes by level are {lowest.tolist()}; only the last of several levels may have "
            f"{PAD}, which ends an item",
            next_step="check the catalogue's codes (sidrec.data.catalog.Catalog does)",
        )
    bits = [int(highest + 1).bit_length() for highest in codes.max(axis=0)]
    index_bits = (num_items - 1).bit_length()
    if sum(bits) + index_bits <= 63:
        order, new = _by_key(codes, bits, index_bits)
    else:
        order, new = _by_columns(codes)
    if not new[-1].all():
        second = int(np.flatnonzero(~new[-1])[0])
        raise UsageError(
            f"items {order[second - 1]} and {order[second]} share the semantic ID {codes[order[second]].tolist()}",
            next_step="build the trie from disambiguated codes (sidrec.data.catalog.disambiguate)",
        )
    return order, new


def _by_key(
    codes: NDArray[np.int32], bits: list[int], index_bits: int
) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    # Codes and index in one number: values are sorted several times as fast as places are.
    key = np.zeros(len(codes), dtype=np.int64)
    for level, width in enumerate(bits):
        key <<= width
        key |= codes[:, level].astype(np.int64) + 1
    key <<= index_bits
    key |= np.arange(len(codes))
    key.sort()
    differing = np.bitwise_xor(key[1:], key[:-1])
    below = index_bits + sum(bits)
    new = []
    for width in bits:
        below -= width
        new.append(np.append(True, differing >> below != 0))
    return key & ((1 << index_bits) - 1), new


def _by_columns(codes: NDArray[np.int32]) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    order = np.lexsort(codes.T[::-1])
    changed = np.zeros(len(codes), dtype=np.bool_)
    changed[0] = True
    new = []
    for level in range(codes.shape[1]):
        column = codes[order, level]
        changed[1:] |= column[1:] != column[:-1]
        new.append(changed.copy())
    return order, new
