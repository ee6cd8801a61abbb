"""Where the children of a level's nodes start, as a table of every node or as a list of the unusual ones.

Nodes are places within their level, in the order of the codes; so are children, within the level below. The place one
past the last is a node too, one without children: what a search keeps where it has no hypothesis.

Axes: `node` places of one level, `odd` those that are listed.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """The first child of every node, of the one past the last, and the end."""

    first: Int[Tensor, " node_and_two"]

    @classmethod
    def of(cls, first: NDArray[np.int64]) -> Self:
        """Return the table of first children, whose last entry is the number of children."""
        return cls(torch.from_numpy(np.append(first, first[-1]).astype(np.int32)))

    def to(self, device: torch.device | str) -> "Table":
        """Return the same table on another device."""
        return Table(self.first.to(device))

    def starts(self, nodes: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return each node's first child."""
        return self.first.index_select(0, nodes)

    def parents(self, children: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return each child's node."""
        return torch.searchsorted(self.first, children, right=True, out_int32=True) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.first.nbytes


@dataclass(frozen=True, eq=False)
class Exceptions:
    """Every node has one child but those in `odd`, which are listed with their first ones."""

    odd: Int[Tensor, " odd_and_two"]
    first: Int[Tensor, " odd_and_two"]

    @classmethod
    def of(cls, first: NDArray[np.int64], odd: NDArray[np.int64]) -> Self:
        """Return the list of the nodes `odd`, out of the first children of all and the number of children."""
        past = len(first) - 1
        nodes = np.concatenate([odd, [past, past + 1]])
        starts = np.concatenate([first[odd], first[[-1, -1]]])
        return cls(torch.from_numpy(nodes.astype(np.int32)), torch.from_numpy(starts.astype(np.int32)))

    def to(self, device: torch.device | str) -> "Exceptions":
        """Return the same list on another device."""
        return Exceptions(self.odd.to(device), self.first.to(device))

    def rank(self, nodes: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return how many listed nodes stand before each."""
        return torch.searchsorted(self.odd, nodes, out_int32=True)

    def starts(self, nodes: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return each node's first child."""
        following = self.rank(nodes)
        # From a node to the next listed one there are as many children as nodes.
        return nodes + self.first.index_select(0, following) - self.odd.index_select(0, following)

    def parents(self, children: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return each child's node."""
        following = torch.searchsorted(self.first, children, right=True, out_int32=True)
        single = children - self.first.index_select(0, following) + self.odd.index_select(0, following)
        before = self.odd.index_select(0, (following - 1).clamp(min=0))
        return torch.where(following > 0, torch.maximum(single, before), single)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.odd.nbytes + self.first.nbytes


Offsets = Table | Exceptions


def offsets(first: NDArray[np.int64]) -> Offsets:
    """Return the smaller form of a level's offsets.

    Args:
        first: [node + 1], each node's first child, and the number of children.
    """
    odd = np.flatnonzero(np.diff(first) != 1)
    return Exceptions.of(first, odd) if 2 * (len(odd) + 2) < len(first) + 1 else Table.of(first)
