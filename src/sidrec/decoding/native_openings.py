"""A request's own exclusions, item by item, as one compiled loop: what `ItemRule.without` says on the CPU.

Axes: `batch` requests, `seen` excluded items of a request, `item` catalogue rows.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sidrec.decoding.loops import NO_LIST, Bools, Ints, compiled, first_child, parent
from sidrec.decoding.nodes import NONE
from sidrec.decoding.offsets import Exceptions
from sidrec.decoding.trie import PrefixTrie

_ALL_OPEN = np.zeros(0, dtype=np.int32)


def closed_places(
    trie: PrefixTrie, open_before: Int[Tensor, " item_and_one"] | None, leaf: Int[Tensor, "batch seen"]
) -> tuple[Int[Tensor, "depth batch seen"], Int[Tensor, "depth batch seen"], list[bool]]:
    """Return the places that each request closes, those above them, and whether any is, by depth from 1.

    Args:
        open_before: open items before each place of the last level, None where all are open.
        leaf: excluded places of the last level; the number of items where there is none.
    """
    above = torch.full((trie.num_levels, *leaf.shape), NONE, dtype=torch.int32)
    place = torch.full_like(above, NONE)
    levels = trie.offsets
    some = _close(
        leaf.int().contiguous().numpy(),
        tuple(level.odd.numpy() if isinstance(level, Exceptions) else NO_LIST for level in levels),
        tuple(level.first.numpy() for level in levels),
        np.array([isinstance(level, Exceptions) for level in levels]),
        _ALL_OPEN if open_before is None else open_before.numpy(),
        trie.num_items,
        above.numpy(),
        place.numpy(),
    )
    return above, place, some.tolist()


@compiled
def _close(
    leaf: Ints, odd: tuple[Ints, ...], first: tuple[Ints, ...], listed: Bools, open_before: Ints, num_items: int,
    out_above: Ints, out_place: Ints,
) -> Bools:  # fmt: skip
    """Fill `out_*` [depth, batch, seen] and return which depths have anything closed."""
    levels, batch, seen = out_place.shape
    some = np.zeros(levels, np.bool_)
    path = np.empty(seen, np.int32)
    for user in range(batch):
        # Sorted by place, so that the items below a prefix are neighbours.
        excluded = np.sort(leaf[user])
        count = 0
        for spot in range(seen):
            item = excluded[spot]
            if item == num_items or (spot > 0 and item == excluded[spot - 1]):
                continue
            if len(open_before) and open_before[item] == open_before[item + 1]:
                continue
            path[count] = item
            count += 1
        # A prefix is closed when as many items below it are excluded as are open, an item when it is excluded.
        groups = np.ones(count, np.int32)
        for depth in range(levels, 0, -1):
            kept = 0
            spot = 0
            while spot < count:
                place = path[spot]
                together = groups[spot]
                spot += 1
                while spot < count and path[spot] == place:
                    together += groups[spot]
                    spot += 1
                low, high = place, place + 1
                for level in range(depth, levels):
                    low = first_child(odd[level], first[level], listed[level], low)
                    high = first_child(odd[level], first[level], listed[level], high)
                size = open_before[high] - open_before[low] if len(open_before) else high - low
                up = parent(odd[depth - 1], first[depth - 1], listed[depth - 1], place)
                if depth == levels or together == size:
                    out_above[depth - 1, user, kept] = up
                    out_place[depth - 1, user, kept] = place
                    some[depth - 1] = True
                path[kept] = up
                groups[kept] = together
                kept += 1
            count = kept
    return some
