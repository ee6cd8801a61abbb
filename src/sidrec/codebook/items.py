"""Who is in the next catalogue: published items in their rows, then new ones, removed ones as tombstones."""

from collections import Counter
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError, UsageError


@dataclass(frozen=True, eq=False)
class MergedItems:
    """The next catalogue's items table; its first `published` rows are the parent's, in the parent's order."""

    table: pl.DataFrame
    published: int
    source: NDArray[np.int64]  # [item], the item's row in the new items table, -1 for a removed one

    @property
    def new(self) -> NDArray[np.int64]:
        """Rows of items that the parent does not have."""
        return np.arange(self.published, len(self.table))

    @property
    def sold(self) -> NDArray[np.bool_]:
        """Which rows the new items table has."""
        return self.source >= 0


def merge_items(catalog: Catalog, items: pl.DataFrame, removed_on: date) -> MergedItems:
    """Return the published items with what `items` says of them now, and the new ones behind them.

    A published item that `items` lacks becomes a tombstone of that day (or keeps its older day); one that is back is
    sold again under its old semantic ID.

    Raises:
        UsageError: `items` has no item_id, or no row.
        CheckFailedError: an item stands twice in `items`.
    """
    if "item_id" not in items.columns or items.is_empty():
        raise UsageError(
            f"the items table has {len(items)} rows and columns {', '.join(items.columns)}; "
            "expected one row an item, with item_id",
            next_step="see docs/your-data.md",
        )
    ids = items["item_id"].to_list()
    twice = [item for item, count in Counter(ids).items() if count > 1]
    if twice:
        raise CheckFailedError(
            f"{len(twice)} items stand more than once in the items table, {twice[0]!r} first",
            next_step="keep one row an item",
        )
    row_of = {item: row for row, item in enumerate(ids)}
    source = [row_of.get(item, -1) for item in catalog.item_ids]
    source += [row for row, item in enumerate(ids) if item not in catalog.index_of]
    fresh = Catalog.build(items, np.arange(len(items), dtype=np.int32)[:, None]).table().drop("codes")
    buried = (
        catalog.table()
        .drop("codes")
        .with_columns(pl.lit(0, pl.Int64).alias("recent_popularity"), pl.col("removed_on").fill_null(removed_on))
    )
    both = pl.concat([fresh.with_columns(pl.lit(None, pl.Date).alias("removed_on")), buried])
    rows = [row if row >= 0 else len(fresh) + position for position, row in enumerate(source)]
    return MergedItems(both[rows], len(catalog), np.array(source, dtype=np.int64))


def traffic_of(table: pl.DataFrame) -> NDArray[np.float64]:
    """Return each item's share of traffic: of recent popularity, else of all popularity, else equal shares."""
    for name in ("recent_popularity", "popularity"):
        if name in table.columns:
            counts = table[name].fill_null(0).to_numpy().astype(np.float64)
            if counts.sum() > 0:
                shares: NDArray[np.float64] = counts / counts.sum()
                return shares
    return np.full(len(table), 1 / max(1, len(table)))
