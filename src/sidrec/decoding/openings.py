"""Which items may be recommended: one rule for everyone, built once, and each request's own exclusions, item by item.

A request costs its excluded items times the levels. What is shared is one bit of knowledge a node and a count an item,
made when the rule changes. A prefix is closed when no item below it is left, so a search never enters a dead end.

Axes: `node` prefixes of the catalogue, `item` catalogue rows, `batch` requests, `seen` excluded items of a request,
`row` hypotheses of all requests, `closed` candidates not to be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.decoding.native_openings import closed_places
from sidrec.decoding.nodes import NONE
from sidrec.decoding.trie import PrefixTrie


@dataclass(frozen=True, slots=True)
class Closed:
    """Places of one level that a request may not enter, and the places above them; `NONE` elsewhere."""

    above: Int[Tensor, "batch seen"]
    place: Int[Tensor, "batch seen"]

    def among(
        self,
        places: Int[Tensor, "batch beam"],
        start: Int[Tensor, " row"],
        first: Int[Tensor, " row"],
    ) -> Int[Tensor, " closed"]:
        """Return which continuations of the hypotheses are closed, by their number.

        Args:
            start: the first place that follows each hypothesis.
            first: its number among all continuations.
        """
        user, beam, seen = (places[:, :, None] == self.above[:, None, :]).nonzero(as_tuple=True)
        row = user * places.shape[1] + beam
        return self.place[user, seen].long() + (first - start).index_select(0, row)


@dataclass(frozen=True, slots=True)
class Openings:
    """What a batch of requests may still reach."""

    shared: Bool[Tensor, " node"] | None
    closed: tuple[Closed | None, ...]  # by depth of what is closed, from 1


@dataclass(frozen=True, eq=False)
class ItemRule:
    """An allow-list over one trie, shared by every request until it changes; None allows everything."""

    trie: PrefixTrie
    open_nodes: Bool[Tensor, " node"] | None
    open_before: Int[Tensor, " item_and_one"] | None  # open items before each place of the last level

    @classmethod
    def blocking(cls, trie: PrefixTrie, blocked: Bool[Tensor, " item"] | None) -> Self:
        """Return the rule that blocks these items for everyone."""
        if blocked is None or not bool(blocked.any()):
            return cls(trie, None, None)
        is_open = ~blocked[trie.order.all()]
        before = torch.cat([torch.zeros_like(is_open[:1]), is_open]).cumsum(0, dtype=torch.int32)
        nodes = torch.zeros(trie.num_nodes, dtype=torch.bool, device=blocked.device)
        for depth in range(trie.num_levels):
            places = torch.arange(trie.num_places(depth), dtype=torch.int32, device=blocked.device)
            low, high = trie.items_below(depth, places)
            nodes[trie.starts[depth] : trie.starts[depth + 1]] = before[low] < before[high]
        run = trie.continuations(trie.num_levels - 1, places)
        to_node = run.to_node.expand_as(run.start).repeat_interleave(run.end - run.start)
        nodes[torch.arange(trie.num_items, device=blocked.device) + to_node] = is_open
        return cls(trie, nodes, before)

    def without(self, items: Int[Tensor, "batch seen"]) -> Openings:
        """Return what is open to requests that exclude these items of their own; `NONE` excludes nothing."""
        trie = self.trie
        if items.numel() == 0 or bool((items == NONE).all()):
            return Openings(self.open_nodes, (None,) * trie.num_levels)
        leaf = trie.place.take(items.flatten().clamp(min=0)).view(items.shape)
        leaf = leaf.masked_fill(items == NONE, trie.num_items).int()
        by_loop = leaf.device.type == "cpu"
        closed = (closed_by_loop if by_loop else closed_by_tensors)(trie, self.open_before, leaf)
        return Openings(self.open_nodes, closed)


class ItemRules:
    """The rule of the latest blocked items, made anew only when these change; not for several threads at once."""

    def __init__(self, trie: PrefixTrie) -> None:
        self._trie = trie
        self._blocked: Bool[Tensor, " item"] | None = None
        self._rule = ItemRule.blocking(trie, None)

    def blocking(self, blocked: Bool[Tensor, " item"]) -> ItemRule:
        """Return the rule that blocks these items for everyone."""
        if self._blocked is None or not torch.equal(self._blocked, blocked):
            # A copy: whoever owns the original may change it in place.
            self._blocked, self._rule = blocked.clone(), ItemRule.blocking(self._trie, blocked)
        return self._rule

    def openings(
        self, blocked: Bool[Tensor, " item"], excluding: Sequence[NDArray[np.int64] | None]
    ) -> Openings | None:
        """Return what requests may reach that each exclude items of their own, None where all may reach everything."""
        width = max((len(items) for items in excluding if items is not None), default=0)
        if width == 0 and not bool(blocked.any()):
            return None
        seen = torch.full((len(excluding), width), NONE, device=blocked.device)
        for row, items in enumerate(excluding):
            if items is not None:
                seen[row, : len(items)] = torch.from_numpy(items)
        return self.blocking(blocked).without(seen)


def closed_by_loop(
    trie: PrefixTrie, open_before: Int[Tensor, " item_and_one"] | None, leaf: Int[Tensor, "batch seen"]
) -> tuple[Closed | None, ...]:
    """Return what requests close that exclude these places of the last level; the number of items excludes nothing."""
    above, place, some = closed_places(trie, open_before, leaf)
    return tuple(Closed(above[depth], place[depth]) if some[depth] else None for depth in range(trie.num_levels))


def closed_by_tensors(
    trie: PrefixTrie, open_before: Int[Tensor, " item_and_one"] | None, leaf: Int[Tensor, "batch seen"]
) -> tuple[Closed | None, ...]:
    """Return the same as `closed_by_loop`, on any device."""
    # Sorted by place, so that the items below a prefix are neighbours; padding comes last, past every place.
    leaf = leaf.sort(dim=1).values
    counted = leaf < trie.num_items
    counted[:, 1:] &= leaf[:, 1:] != leaf[:, :-1]
    inside = leaf.clamp(max=trie.num_items - 1)
    if open_before is not None:
        counted &= open_before[inside] < open_before[inside + 1]
    before = torch.cat([counted.new_zeros(len(leaf), 1), counted], dim=1).cumsum(1, dtype=torch.int32)
    chain = trie.path_of_places(inside.flatten())
    levels: list[Closed | None] = []
    for depth in range(1, trie.num_levels):
        low, high = (ends.view(leaf.shape) for ends in trie.items_below(depth, chain[depth]))
        excluded = before.gather(1, torch.searchsorted(leaf, high)) - before.gather(1, torch.searchsorted(leaf, low))
        is_open = high - low if open_before is None else open_before[high] - open_before[low]
        levels.append(_closed(counted & (excluded == is_open), chain, depth))
    # An item is closed when it is excluded, whatever is below its prefixes.
    return (*levels, _closed(counted, chain, trie.num_levels))


def _closed(shut: Bool[Tensor, "batch seen"], chain: list[Int[Tensor, " path"]], depth: int) -> Closed | None:
    """Return what is closed at `depth` of the excluded items' paths, None where nothing is."""
    if not bool(shut.any()):
        return None
    above, place = (chain[level].view(shut.shape) for level in (depth - 1, depth))
    return Closed(torch.where(shut, above, NONE), place)
