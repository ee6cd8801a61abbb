"""The next catalogue keeps published rows, adds new ones and buries removed ones."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from sidrec.codebook.items import merge_items, traffic_of
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError, UsageError

DAY = date(2010, 9, 1)


def items(*ids: str, recent: int = 1) -> pl.DataFrame:
    rows = len(ids)
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"new {i}" for i in ids],
            "popularity": [9] * rows,
            "recent_popularity": [recent] * rows,
        }
    )


def published(*ids: str, removed: str | None = None) -> Catalog:
    table = items(*ids).with_columns(
        title=pl.lit("old"),
        removed_on=pl.Series([date(2010, 5, 5) if i == removed else None for i in ids], dtype=pl.Date),
    )
    return Catalog.build(table, np.arange(len(ids), dtype=np.int32)[:, None])


def test_published_items_keep_their_rows_and_new_ones_follow() -> None:
    """Whatever the new table's order, item indices of the old catalogue stay; titles and counts are the new ones."""
    merged = merge_items(published("a", "b"), items("c", "b", "a", recent=7), DAY)

    assert merged.table["item_id"].to_list() == ["a", "b", "c"]
    assert merged.table["title"].to_list() == ["new a", "new b", "new c"]
    assert merged.table["recent_popularity"].to_list() == [7, 7, 7]
    assert merged.source.tolist() == [2, 1, 0]
    assert merged.new.tolist() == [2]


def test_a_removed_item_is_buried_once_and_comes_back() -> None:
    """It keeps its title and the day it went; listed again, it is sold again."""
    gone = merge_items(published("a", "b", "c", removed="c"), items("a"), DAY)
    back = merge_items(published("a", "b", removed="b"), items("a", "b"), DAY)

    assert gone.table["removed_on"].to_list() == [None, DAY, date(2010, 5, 5)]
    assert gone.table["title"].to_list() == ["new a", "old", "old"]
    assert gone.table["recent_popularity"].to_list() == [1, 0, 0]
    assert back.table["removed_on"].to_list() == [None, None]


def test_bad_tables_are_refused() -> None:
    """No rows, no ids and two rows of one item are three named faults."""
    with pytest.raises(UsageError, match="0 rows"):
        merge_items(published("a"), items().clear(), DAY)
    with pytest.raises(UsageError, match="columns title"):
        merge_items(published("a"), pl.DataFrame({"title": ["x"]}), DAY)
    with pytest.raises(CheckFailedError, match="1 items stand more than once in the items table, 'b' first"):
        merge_items(published("a"), items("b", "b"), DAY)


def test_traffic_is_recent_else_ever_else_equal() -> None:
    """Shares that sum to 1, by hand."""
    table = pl.DataFrame({"recent_popularity": [3, 1], "popularity": [1, 1]})

    assert traffic_of(table).tolist() == [0.75, 0.25]
    assert traffic_of(table.with_columns(recent_popularity=0)).tolist() == [0.5, 0.5]
    assert traffic_of(table.with_columns(recent_popularity=0, popularity=0)).tolist() == [0.5, 0.5]


def test_categories_are_those_of_the_newest_table() -> None:
    """A published item moves to another category, a removed one keeps its last, a new one brings its own."""
    before = items("a", "b").with_columns(categories=pl.Series(["x", "y"]))
    catalog = Catalog.build(before, np.array([[0], [1]], dtype=np.int32))
    merged = merge_items(catalog, items("c", "a").with_columns(categories=pl.Series(["z", "w"])), DAY)

    assert merged.table["categories"].to_list() == ["w", "y", "z"]
