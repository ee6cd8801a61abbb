"""The allowed continuations of every semantic-ID prefix, as flat arrays.

Nodes are numbered breadth first, the root is 0, and the children of a node are neighbours in that order. So each
node but the root has exactly one incoming code, and each node covers one run of `leaf_order`.

Axes: `node` prefixes of the catalogue, `item` catalogue rows, `child` padded continuations, `code` one codebook.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from sidrec.data.catalog import PAD

ROOT = 0
NONE = -1


@dataclass(frozen=True, eq=False)
class PrefixTrie:
    """A frozen trie; every array is int64 on one device."""

    child_start: Int[Tensor, " node_and_one"]
    parent: Int[Tensor, " node"]
    code: Int[Tensor, " node"]
    item: Int[Tensor, " node"]  # NONE for an inner node
    leaf: Int[Tensor, " item"]
    leaf_order: Int[Tensor, " item"]  # items by semantic ID
    leaf_start: Int[Tensor, " node"]
    leaf_end: Int[Tensor, " node"]
    level_start: Int[Tensor, " level_and_two"]  # first node of each depth, root's included

    @classmethod
    def from_codes(cls, codes: NDArray[np.int32]) -> Self:
        """Return the trie of a catalogue's codes [item, level]; `PAD` in the last level ends an item early."""
        num_items, num_levels = codes.shape
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order].astype(np.int64)
        parents, node_codes, starts, ends = [np.array([NONE])], [np.array([NONE])], [np.array([0])], [np.array([0])]
        ends[0][:] = num_items
        above = np.zeros(num_items, dtype=np.int64)
        level_start, count = [0, 1], 1
        leaf = np.zeros(num_items, dtype=np.int64)
        for level in range(num_levels):
            present = ordered[:, level] != PAD
            rows = np.flatnonzero(present)
            changed = np.ones(len(rows), dtype=bool)
            key = np.stack([above[rows], ordered[rows, level]])
            changed[1:] = (key[:, 1:] != key[:, :-1]).any(axis=0)
            first = rows[changed]
            node_of_row = count + np.cumsum(changed) - 1
            parents.append(above[first])
            node_codes.append(ordered[first, level])
            starts.append(first)
            ends.append(first + np.bincount(node_of_row - count, minlength=len(first)))
            above[rows] = node_of_row
            count += len(first)
            level_start.append(count)
        leaf[order] = above
        parent = np.concatenate(parents)
        item = np.full(count, NONE, dtype=np.int64)
        item[leaf] = np.arange(num_items)
        arrays = {
            "child_start": np.searchsorted(parent[1:], np.arange(count + 1)) + 1,
            "parent": parent,
            "code": np.concatenate(node_codes),
            "item": item,
            "leaf": leaf,
            "leaf_order": order,
            "leaf_start": np.concatenate(starts),
            "leaf_end": np.concatenate(ends),
            "level_start": np.array(level_start),
        }
        return cls(**{name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the trie in a safetensors file."""
        return cls(**{name: tensor.long() for name, tensor in load_file(path).items()})

    def write(self, path: Path) -> None:
        """Write the trie as int32 safetensors; `read` returns an equal one."""
        save_file({spec.name: getattr(self, spec.name).int().contiguous() for spec in fields(self)}, path)

    def to(self, device: torch.device | str) -> Self:
        """Return the same trie on another device."""
        return type(self)(**{spec.name: getattr(self, spec.name).to(device) for spec in fields(self)})

    @property
    def num_nodes(self) -> int:
        """Prefixes of the catalogue, the empty one included."""
        return len(self.parent)

    @property
    def num_levels(self) -> int:
        """Longest semantic ID."""
        return len(self.level_start) - 2

    def level_nodes(self, depth: int) -> tuple[int, int]:
        """Return the half-open range of the nodes at `depth` (0 is the root)."""
        return int(self.level_start[depth]), int(self.level_start[depth + 1])

    @cached_property
    def max_children(self) -> list[int]:
        """The largest number of children of a node, by depth."""
        counts = self.child_start.diff()
        return [int(counts[slice(*self.level_nodes(depth))].max()) for depth in range(self.num_levels)]

    def children(self, nodes: Int[Tensor, "*rows"], width: int) -> Int[Tensor, "*rows child"]:
        """Return each node's children, padded with `NONE` to `width`; a `NONE` node has none."""
        start = self.child_start[nodes.clamp(min=0)]
        end = torch.where(nodes == NONE, start, self.child_start[nodes.clamp(min=0) + 1])
        children = start[..., None] + torch.arange(width, device=nodes.device)
        return torch.where(children < end[..., None], children, NONE)

    @cached_property
    def ancestors(self) -> Int[Tensor, "item level"]:
        """The node of each item's prefix of every length; an ended item repeats its leaf."""
        chain = [self.leaf]
        depth = torch.searchsorted(self.level_start, self.leaf, right=True) - 1
        for level in range(self.num_levels - 1, 0, -1):
            below = chain[-1]
            chain.append(torch.where(depth > level, self.parent[below], below))
        return torch.stack(chain[::-1], dim=1)

    def node_sums(self, values: Shaped[Tensor, "*rows item"]) -> Shaped[Tensor, "*rows node"]:
        """Return, for every node, the sum of its items' values."""
        ordered = values[..., self.leaf_order]
        running = torch.cat([torch.zeros_like(ordered[..., :1]), ordered.cumsum(dim=-1)], dim=-1)
        return running[..., self.leaf_end] - running[..., self.leaf_start]

    def allowed_nodes(self, blocked: Bool[Tensor, "batch item"]) -> Bool[Tensor, "batch node"]:
        """Return which prefixes still lead to an item that is not blocked."""
        return self.node_sums((~blocked).int()) > 0


def child_log_probs(
    logits: Float[Tensor, "*rows code"],
    bias: Float[Tensor, "*rows child"],
    children: Int[Tensor, "*rows child"],
    codes: Int[Tensor, " node"],
) -> Float[Tensor, "*rows child"]:
    """Return log-probabilities over a prefix's real continuations only; padding has -inf.

    A node without children has a row of -inf.

    Args:
        bias: what is added to each child's logit; its value at padding has no effect.
        codes: the trie's incoming codes.
    """
    padding = children == NONE
    safe = children.clamp(min=0)
    # Finite, so that a row of padding has gradients of zero and not of nan.
    scores = (logits.gather(-1, codes[safe].clamp(min=0)) + bias).masked_fill(padding, -1e30)
    return (scores - scores.logsumexp(dim=-1, keepdim=True)).masked_fill(padding, -torch.inf)
