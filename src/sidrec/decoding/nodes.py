"""Arrays over all nodes of a trie, for what looks at every prefix at once: priors, losses, explanations, files.

Axes: `node` prefixes of the catalogue, breadth first, `item` catalogue rows.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import PAD

NONE = -1


@dataclass(frozen=True, eq=False, slots=True)
class NodeArrays:
    """Every array is int64 on one device; the run of `leaf_order` that a node covers is from start to end."""

    child_start: Int[Tensor, " node_and_one"]
    parent: Int[Tensor, " node"]  # NONE for the root
    code: Int[Tensor, " node"]  # NONE for the root
    item: Int[Tensor, " node"]  # NONE for an inner node
    leaf: Int[Tensor, " item"]
    leaf_order: Int[Tensor, " item"]
    leaf_start: Int[Tensor, " node"]
    leaf_end: Int[Tensor, " node"]

    @classmethod
    def of(
        cls,
        child_start: Int[Tensor, " node_and_one"],
        code: Int[Tensor, " node"],
        leaf_order: Int[Tensor, " item"],
        starts: tuple[int, ...],
    ) -> "NodeArrays":
        """Return the arrays that follow from children, codes (the root's is not read) and the order of the items."""
        fan_out = child_start.diff()
        device = code.device
        parent = torch.repeat_interleave(torch.arange(len(code), device=device), fan_out)
        parent = torch.cat([torch.full((1,), NONE, device=device), parent])
        # Leaves below each node, by level from the last one up.
        leaves = (fan_out == 0).long()
        for low, high in reversed(list(pairwise(starts[1:]))):
            leaves.index_add_(0, parent[low:high], leaves[low:high].clone())
        start = torch.zeros_like(leaves)
        for low, high in pairwise(starts):
            before = leaves[low:high].cumsum(0) - leaves[low:high]
            if low == 0:
                continue
            first = child_start[parent[low:high]]
            # Those before it below the same prefix, on top of where the prefix itself starts.
            start[low:high] = start[parent[low:high]] + before - before[first - low]
        leaf_nodes = torch.nonzero(fan_out == 0).flatten()
        item = torch.full_like(parent, NONE)
        item[leaf_nodes] = leaf_order[start[leaf_nodes]]
        leaf = torch.empty_like(leaf_order)
        leaf[item[leaf_nodes]] = leaf_nodes
        code = torch.cat([torch.full((1,), NONE, device=device), code[1:].long()])
        return cls(child_start, parent, code, item, leaf, leaf_order, start, start + leaves)


def item_codes(
    child_start: NDArray[np.int64], code: NDArray[np.int64], leaf_order: NDArray[np.int64], starts: list[int]
) -> NDArray[np.int32]:
    """Return the codes [item, level] of the catalogue that these arrays are of; `PAD` where an item ends early."""
    num_levels = len(starts) - 2
    fan_out = np.diff(child_start)
    parent = np.concatenate([[NONE], np.repeat(np.arange(len(code)), fan_out)])
    last = fan_out[starts[-3] : starts[-2]]
    node = np.repeat(np.arange(starts[-3], starts[-2]), np.maximum(last, 1))
    codes = np.full((len(leaf_order), num_levels), PAD, dtype=np.int32)
    reached = np.repeat(last > 0, np.maximum(last, 1))
    codes[leaf_order[reached], -1] = code[starts[-2] :]
    for level in range(num_levels - 2, -1, -1):
        codes[leaf_order, level] = code[node]
        node = parent[node]
    return codes
