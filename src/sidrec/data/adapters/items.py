"""The items file of adapters that have one: a title for every item that can be recommended."""

from collections.abc import Mapping
from typing import Any

import narwhals as nw
import polars as pl

from sidrec.data.adapters.source import ColumnFormat, identifier
from sidrec.data.tables import Rows
from sidrec.data.events import ITEMS_RAW, conform

CATALOG_ITEM = "catalog_item_id"
"""The row's item where the items file has it, else null: what the referential rule looks at."""

ITEM_RULE: dict[str, Any] = {
    "column": CATALOG_ITEM,
    "required": True,
    "reason": "the items file does not have this item",
}


def item_formats(id_column: str, title_column: str) -> tuple[ColumnFormat, ...]:
    """Return what an items file looks like: one row an item, nearly every item with a title."""
    return (
        ColumnFormat(
            table="items", column=id_column, meaning="item ids, one row each", max_null_share=0.0, unique=True
        ),
        ColumnFormat(table="items", column=title_column, meaning="titles (words)", max_null_share=0.05),
    )


def item_table(raw: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Return the items file in our columns; an item without a title gets an empty one.

    Args:
        names: ours -> theirs.
    """
    known = {ours: theirs for ours, theirs in names.items() if ours in ITEMS_RAW and theirs in raw.columns}
    text = {ours: _text(theirs, raw[theirs].dtype).str.strip_chars() for ours, theirs in known.items()}
    text["item_id"] = identifier(pl.col(known["item_id"]), raw[known["item_id"]].dtype)
    return conform(raw.select(**text), ITEMS_RAW).with_columns(pl.col("title").fill_null(""))


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column as text; a list (categories, mostly) is joined by "; "."""
    if isinstance(dtype, pl.List):
        return pl.col(column).cast(pl.List(pl.String)).list.join("; ", ignore_nulls=True)
    return pl.col(column).cast(pl.String)


def with_catalog(rows: Rows, items: Rows) -> Rows:
    """Return rows with the column that `ITEM_RULE` checks."""
    known = items.group_by("item_id").agg().with_columns(nw.col("item_id").alias(CATALOG_ITEM))
    return rows.join(known, on="item_id", how="left")
