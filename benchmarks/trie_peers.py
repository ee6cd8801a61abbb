"""What one would ask instead for the codes that may follow a prefix: dicts, sorted keys, every item of the catalogue.

Axes: `item` catalogue rows, `level` codes of an item, `row` prefixes asked for, `code` one codebook.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def dict_trie(codes: Int[Tensor, "item level"]) -> dict[int, Any]:
    """Return nested dicts, a code to what may follow it: what a `prefix_allowed_tokens_fn` usually walks."""
    root: dict[int, Any] = {}
    for row in codes.tolist():
        node = root
        for code in row:
            node = node.setdefault(code, {})
    return root


def walked(root: dict[int, Any], prefixes: Int[Tensor, "row level"]) -> list[list[int]]:
    """Return the codes that may follow each prefix, walked from the root."""
    allowed = []
    for prefix in prefixes.tolist():
        node = root
        for code in prefix:
            node = node[code]
        allowed.append(list(node))
    return allowed


def sorted_keys(codes: Int[Tensor, "item level"], size: int) -> Int[Tensor, " item"]:
    """Return the items as one number each, rising."""
    return _number(codes, size).sort().values


def searched(
    keys: Int[Tensor, " item"], prefixes: Int[Tensor, "row level"], size: int, num_levels: int
) -> Bool[Tensor, "row code"]:
    """Return which codes follow: those between whose bounds a binary search finds a key."""
    bounds = _number(prefixes, size)[:, None] * size + torch.arange(size + 1)
    return torch.searchsorted(keys, bounds * size ** (num_levels - prefixes.shape[1] - 1)).diff(dim=1) > 0


def compared(
    codes: Int[Tensor, "item level"], prefixes: Int[Tensor, "row level"], size: int
) -> Bool[Tensor, "row code"]:
    """Return which codes follow by comparing every extended prefix with every item: O(items) a step.

    Source: the check that GRID's published description gives for a beam's candidates.
    """
    length = prefixes.shape[1] + 1
    known = codes[:, :length].contiguous()
    masks = []
    # A prefix at a time bounds the memory.
    for prefix in prefixes:
        extended = torch.cat([prefix.expand(size, -1), torch.arange(size)[:, None]], dim=1)
        masks.append((extended[:, None, :] == known[None, :, :]).all(dim=2).any(dim=1))
    return torch.stack(masks)


def _number(codes: Int[Tensor, "row level"], size: int) -> Int[Tensor, " row"]:
    number = torch.zeros(len(codes), dtype=torch.int64)
    for level in range(codes.shape[1]):
        number = number * size + codes[:, level]
    return number
