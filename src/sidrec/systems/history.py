"""Users' pasts as arrays of item indices: baskets in time order, and what item and code tables a system reads them by.

One user's are a `History`; everybody's are columns, of which a user is copied when it is asked for.

Axes: `item` catalogue rows, `level` codes of a semantic ID.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.clock import DAY_S
from sidrec.data.catalog import PAD, Catalog
from sidrec.systems.base import Query

Ints = NDArray[np.int64]

# Users or baskets that are looked at together where all of them are.
BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class History:
    """One user's baskets, oldest first: `items[start[b]:start[b + 1]]` is basket b, bought on day `days[b]`."""

    items: Ints
    start: Ints
    days: Ints

    def __len__(self) -> int:
        return len(self.days)

    def tail(self, size: int) -> "History":
        """Return the newest `size` baskets."""
        first = max(0, len(self) - size)
        low = self.start[first]
        return History(self.items[low:], self.start[first:] - low, self.days[first:])

    def before(self, day: int) -> "History":
        """Return the baskets of earlier days."""
        count = int(np.searchsorted(self.days, day))
        return History(self.items[: self.start[count]], self.start[: count + 1], self.days[:count])

    def split(self, basket: int, rng: np.random.Generator) -> "History":
        """Return the history with one basket in two random parts, the second to be predicted from the first."""
        low, high = int(self.start[basket]), int(self.start[basket + 1])
        items = self.items.copy()
        items[low:high] = rng.permutation(items[low:high])
        middle = int(rng.integers(low + 1, high))
        return History(
            items, np.insert(self.start, basket + 1, middle), np.insert(self.days, basket, self.days[basket])
        )

    def newest_items(self, size: int) -> "History":
        """Return the newest `size` items; the oldest basket kept may lose some of its own."""
        low = max(0, len(self.items) - size)
        first = max(int(np.searchsorted(self.start, low, side="right")) - 1, 0)
        return History(self.items[low:], np.maximum(self.start[first:] - low, 0), self.days[first:])


@dataclass(frozen=True, slots=True, eq=False)
class Histories(Sequence[History]):
    """Every user's baskets as columns, in memory or mapped from files.

    Basket b is `items[start[b]:start[b + 1]]`, bought on day `days[b]`; user u has baskets `first[u]:first[u + 1]`.
    Where there is a day `until`, baskets from it on are not there, and some users have none.
    """

    items: NDArray[np.int32]
    start: NDArray[np.int64]
    days: NDArray[np.int32]
    first: NDArray[np.int64]
    until: int | None = None

    @classmethod
    def of(cls, histories: Iterable[History]) -> "Histories":
        """Return some users' histories as columns in memory."""
        if isinstance(histories, Histories):
            return histories
        return cls.joined(
            Histories(
                history.items.astype(np.int32),
                history.start,
                history.days.astype(np.int32),
                np.array([0, len(history)]),
            )
            for history in histories
        )

    @classmethod
    def joined(cls, blocks: Iterable["Histories"]) -> Self:
        """Return the users of all blocks, one after the other, in memory."""
        items, days = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        start, first = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        events = baskets = 0
        for block in blocks:
            items.append(block.items)
            start.append(block.start[1:] + events)
            days.append(block.days)
            first.append(block.first[1:] + baskets)
            events, baskets = events + len(block.items), baskets + len(block.days)
        return cls(np.concatenate(items), np.concatenate(start), np.concatenate(days), np.concatenate(first))

    def __len__(self) -> int:
        return len(self.first) - 1

    @overload
    def __getitem__(self, user: int) -> History: ...

    @overload
    def __getitem__(self, user: slice) -> list[History]: ...

    def __getitem__(self, user: int | slice) -> History | list[History]:
        """Return a user's history in arrays of its own."""
        rows = range(len(self))[user]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        low, high = self.first[rows], self.first[rows + 1]
        start = self.start[low : high + 1]
        items = self.items[start[0] : start[-1]].astype(np.int64)
        whole = History(items, start - start[0], self.days[low:high].astype(np.int64))
        return whole if self.until is None else whole.before(self.until)

    def before(self, day: int) -> "Histories":
        """Return the same users with the baskets of earlier days."""
        return replace(self, until=day if self.until is None else min(day, self.until))

    def sizes(self) -> NDArray[np.int32]:
        """Return the number of each user's baskets."""
        sizes = np.diff(self.first).astype(np.int32)
        if self.until is not None:
            for low in range(0, len(self), BLOCK):
                first = self.first[low : low + BLOCK + 1]
                there = np.cumsum(self.days[first[0] : first[-1]] < self.until)
                sizes[low : low + BLOCK] = np.diff(np.concatenate([[0], there])[first - first[0]])
        return sizes

    def events(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Yield the items of all events and their days, block by block."""
        for low in range(0, len(self.days), BLOCK):
            start = self.start[low : low + BLOCK + 1]
            items = self.items[start[0] : start[-1]]
            days = np.repeat(self.days[low : low + BLOCK], np.diff(start))
            yield (items, days) if self.until is None else (items[days < self.until], days[days < self.until])


def history_of(query: Query) -> History:
    """Return a query's history by baskets."""
    start = np.flatnonzero(np.diff(query.basket, prepend=-1))
    return History(query.items, np.append(start, len(query.items)), query.times[start] // DAY_S)


def code_table(catalog: Catalog) -> Int[Tensor, "item level"]:
    """Return the catalogue's codes with 0 in place of a missing last code."""
    return torch.from_numpy(np.where(catalog.codes == PAD, 0, catalog.codes).astype(np.int64))


def has_code(catalog: Catalog) -> Bool[Tensor, "item level"]:
    """Return which codes an item really has."""
    return torch.from_numpy(catalog.codes != PAD)
