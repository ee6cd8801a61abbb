"""Users' pasts as arrays of item indices: baskets in time order, and what item and code tables a system reads them by.

Axes: `item` catalogue rows, `level` codes of a semantic ID.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.clock import DAY_S
from sidrec.data.catalog import PAD, Catalog
from sidrec.systems.base import Query

Ints = NDArray[np.int64]


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


def histories_of(baskets: pl.DataFrame, catalog: Catalog) -> list[History]:
    """Return each user's baskets with item indices, users in the table's order; unknown items are dropped."""
    index_of = catalog.index_of
    histories = []
    for table in baskets.sort("user_id", "day").partition_by("user_id", maintain_order=True):
        lists = [[index_of[item] for item in items if item in index_of] for items in table["item_ids"].to_list()]
        days = table["day"].cast(pl.Int32).to_numpy().astype(np.int64)
        kept = [row for row, items in enumerate(lists) if items]
        if kept:
            sizes = np.array([len(lists[row]) for row in kept], dtype=np.int64)
            items = np.concatenate([np.array(lists[row], dtype=np.int64) for row in kept])
            histories.append(History(items, np.concatenate([[0], np.cumsum(sizes)]), days[kept]))
    return histories


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
