"""The allowed continuations of every semantic-ID prefix, packed: offsets, codes in one or two bytes, items by order.

Nodes are numbered breadth first, the root is 0, and the children of a node are neighbours in that order. So each
node but the root has exactly one incoming code, and each node covers one run of the items in the order of their codes.

A search holds *places*: those of nodes within their level, and in the last level those of items in code order, where
an item that ended above has a place too. A search needs no array over all nodes; they are derived when asked for.

Axes: `node` prefixes of the catalogue, `item` catalogue rows, `row` places asked for, `child` padded continuations,
`code` one codebook.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sidrec.data.catalog import PAD
from sidrec.decoding.nodes import NONE as NONE
from sidrec.decoding.nodes import NodeArrays, item_codes
from sidrec.decoding.offsets import Exceptions, Offsets, offsets
from sidrec.decoding.packed_ints import PackedInts
from sidrec.decoding.sorting import sorted_by_code
from sidrec.errors import BundleError, UsageError

ROOT = 0
# What a file holds; those of older versions hold more, which follows from these.
STORED = ("child_start", "code", "leaf_order", "level_start")


class Continuations(NamedTuple):
    """The places one level below that follow each row: a run, and what makes a place in it a node's number."""

    start: Int[Tensor, " row"]
    end: Int[Tensor, " row"]
    to_node: Int[Tensor, "#row"]


@dataclass(frozen=True, eq=False)
class PrefixTrie:
    """A frozen trie on one device."""

    packed_code: Int[Tensor, " node"]
    offsets: tuple[Offsets, ...]  # of each depth but the last one
    order: PackedInts  # items by semantic ID
    starts: tuple[int, ...]  # first node of each depth, the root's included, and the number of nodes

    @classmethod
    def from_codes(cls, codes: NDArray[np.int32]) -> Self:
        """Return the trie of a catalogue's codes [item, level]; `PAD` in the last level ends an item early.

        Raises:
            UsageError: two items share a semantic ID, one is the beginning of another, or a code is negative.
        """
        num_items, num_levels = codes.shape
        order, new = sorted_by_code(codes)
        level_codes, firsts, starts = [np.zeros(1, dtype=codes.dtype)], [], [0, 1]
        above = np.zeros(1, dtype=np.int64)
        for level in range(num_levels):
            column = codes[:, level]
            begin = np.flatnonzero(new[level])
            firsts.append(np.append(np.searchsorted(begin, above), len(begin)))
            if level + 1 == num_levels:
                begin = begin[column[order[begin]] != PAD]
            level_codes.append(column[order[begin]])
            starts.append(starts[-1] + len(begin))
            above = begin
        node_codes = np.concatenate(level_codes)
        if len(above) == num_items:
            levels = [offsets(first) for first in firsts]
        else:
            # An ended item is listed as nothing, a prefix with one extra code is: the list tells them apart.
            prefixes = firsts[-1]
            inner = np.flatnonzero(codes[order[prefixes[:-1]], -1] != PAD)
            _refuse_beginnings(codes, order, prefixes, inner)
            levels = [offsets(first) for first in firsts[:-1]] + [Exceptions.of(prefixes, inner)]
        largest = int(node_codes.max(initial=0))
        smallest = np.uint8 if largest < 2**8 else np.int16 if largest < 2**15 else np.int32
        packed = PackedInts.of(order, max(0, num_items - 1))
        return cls(torch.from_numpy(node_codes.astype(smallest)), tuple(levels), packed, tuple(starts))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the trie in a safetensors file.

        Raises:
            BundleError: the file is none, or lacks an array.
        """
        try:
            arrays = load_file(path)
        except (FileNotFoundError, SafetensorError) as error:
            raise BundleError(f"the trie cannot be read: {error}", evidence=path) from error
        missing = [name for name in STORED if name not in arrays]
        if missing:
            raise BundleError(f"the trie has no {', '.join(missing)}; expected {', '.join(STORED)}", evidence=path)
        child_start, code, order, starts = (arrays[name].long().numpy() for name in STORED)
        return cls.from_codes(item_codes(child_start, code, order, starts.tolist()))

    def write(self, path: Path) -> None:
        """Write the trie as safetensors; `read` returns an equal one."""
        arrays = {
            "child_start": self.child_start.int(),
            "code": self.packed_code,
            "leaf_order": self.leaf_order.int(),
            "level_start": self.level_start.int(),
        }
        save_file(arrays, path)

    def to(self, device: torch.device | str) -> Self:
        """Return the same trie on another device."""
        levels = tuple(level.to(device) for level in self.offsets)
        return type(self)(self.packed_code.to(device), levels, self.order.to(device), self.starts)

    @property
    def num_nodes(self) -> int:
        """Prefixes of the catalogue, the empty one included."""
        return self.starts[-1]

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.order)

    @property
    def num_levels(self) -> int:
        """Longest semantic ID."""
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes that a search reads; `place` comes on top where chosen items are scored or excluded."""
        return self.packed_code.nbytes + self.order.nbytes + sum(level.nbytes for level in self.offsets)

    def num_places(self, depth: int) -> int:
        """Return how many places the level at `depth` has; the one past them has no continuations."""
        return self.num_items if depth == self.num_levels else self.starts[depth + 1] - self.starts[depth]

    def continuations(self, depth: int, places: Int[Tensor, " row"]) -> Continuations:
        """Return what follows each place of the level at `depth`, in the level below."""
        level = self.offsets[depth]
        start, end = level.starts(places), level.starts(places + 1)
        to_node = self.node_shift[depth + 1]
        if depth + 1 == self.num_levels and self.some_end_early:
            assert isinstance(level, Exceptions)
            rank = level.rank(places)
            inner = level.odd.index_select(0, rank) == places
            # An item that ended above keeps the node that it has there; those before an inner node have none below it.
            to_node = torch.where(inner, to_node + rank - places, places + self.starts[depth] - start)
        return Continuations(start, end, to_node)

    def paths(self, items: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
        """Return the places of each item's prefixes, the root's first and its own in the last level at the end."""
        return self.path_of_places(self.place.take(items).int())

    def path_of_places(self, places: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
        """Return the places of the prefixes of places in the last level, the root's first and they themselves last."""
        chain = [places]
        for level in reversed(self.offsets):
            chain.append(level.parents(chain[-1]))
        return chain[::-1]

    def items_below(self, depth: int, places: Int[Tensor, " row"]) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
        """Return the half-open range of the places in the last level that lie below each place at `depth`."""
        low, high = places, places + 1
        for level in self.offsets[depth:]:
            low, high = level.starts(low), level.starts(high)
        return low, high

    def items_at(self, places: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return the items at places of the last level, `NONE` for the place past them."""
        items = self.order.take(places.clamp(max=self.num_items - 1))
        return torch.where(places < self.num_items, items, NONE)

    @cached_property
    def place(self) -> PackedInts:
        """Each item's place in the last level."""
        places = torch.empty(self.num_items, dtype=torch.int64)
        places[self.order.all().cpu()] = torch.arange(self.num_items)
        return PackedInts.of(places.numpy(), max(0, self.num_items - 1)).to(self.packed_code.device)

    @property
    def some_end_early(self) -> bool:
        """Whether an item ends above the last level."""
        return self.starts[-1] - self.starts[-2] < self.num_items

    @cached_property
    def node_shift(self) -> list[Int[Tensor, " one"]]:
        """What makes a place of each depth a node's number, but in a last level that some items do not reach."""
        return [torch.tensor([start], dtype=torch.int32, device=self.packed_code.device) for start in self.starts]

    @cached_property
    def nodes(self) -> NodeArrays:
        """Arrays over all nodes: many times the bytes of the trie itself."""
        first = []
        for depth, level in enumerate(self.offsets):
            places = torch.arange(self.num_places(depth), dtype=torch.int32, device=self.packed_code.device)
            run = self.continuations(depth, places)
            # A run that leads to its own level is an item that ended: no children before the next node's.
            ended = run.start + run.to_node < self.starts[depth + 1]
            fan_out = torch.where(ended, 0, level.starts(places + 1) - run.start).long()
            first.append(self.starts[depth + 1] + fan_out.cumsum(0) - fan_out)
        tail = torch.full((self.starts[-1] - self.starts[-2] + 1,), self.num_nodes, device=self.packed_code.device)
        return NodeArrays.of(torch.cat([*first, tail]), self.packed_code, self.order.all(), self.starts)

    @property
    def child_start(self) -> Int[Tensor, " node_and_one"]:
        """The first child of every node."""
        return self.nodes.child_start

    @property
    def parent(self) -> Int[Tensor, " node"]:
        """The prefix of every node, `NONE` for the root."""
        return self.nodes.parent

    @property
    def code(self) -> Int[Tensor, " node"]:
        """The incoming code of every node, `NONE` for the root."""
        return self.nodes.code

    @property
    def item(self) -> Int[Tensor, " node"]:
        """The item of every leaf, `NONE` for an inner node."""
        return self.nodes.item

    @property
    def leaf(self) -> Int[Tensor, " item"]:
        """The node of every item."""
        return self.nodes.leaf

    @property
    def leaf_order(self) -> Int[Tensor, " item"]:
        """The items by semantic ID."""
        return self.nodes.leaf_order

    @property
    def leaf_start(self) -> Int[Tensor, " node"]:
        """Where each node's run of `leaf_order` starts."""
        return self.nodes.leaf_start

    @property
    def leaf_end(self) -> Int[Tensor, " node"]:
        """Where each node's run of `leaf_order` ends."""
        return self.nodes.leaf_end

    @cached_property
    def level_start(self) -> Int[Tensor, " level_and_two"]:
        """The first node of each depth, the root's included, and the number of nodes."""
        return torch.tensor(self.starts, device=self.packed_code.device)

    def level_nodes(self, depth: int) -> tuple[int, int]:
        """Return the half-open range of the nodes at `depth` (0 is the root)."""
        return self.starts[depth], self.starts[depth + 1]

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


def _refuse_beginnings(
    codes: NDArray[np.int32], order: NDArray[np.int64], first: NDArray[np.int64], inner: NDArray[np.int64]
) -> None:
    """Refuse an item that ends where another one's semantic ID goes on."""
    several = np.diff(first) > 1
    several[inner] = False
    if several.any():
        place = first[np.flatnonzero(several)[0]]
        raise UsageError(
            f"the semantic ID {codes[order[place], :-1].tolist()} of item {order[place]} is the beginning of "
            f"{codes[order[place + 1]].tolist()} of item {order[place + 1]}",
            next_step="build the trie from disambiguated codes (sidrec.data.catalog.disambiguate)",
        )
