"""The tables between ingestion and sequences, column by column, the same for every adapter."""

import polars as pl

EVENTS: dict[str, type[pl.DataType]] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,
    "event_type": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "position": pl.Int64,
}
"""Events and sales: unix seconds in UTC, `position` is the row's place in the source."""

ITEMS_RAW: dict[str, type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "categories": pl.String,
    "description": pl.String,
}

PARSED: dict[str, type[pl.DataType]] = {**EVENTS, "order_id": pl.String, "title": pl.String}
"""What an adapter makes of a source row; `order_id` and `title` may be null throughout."""


def conform(frame: pl.DataFrame, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Return the schema's columns in its order and types; a column that the frame lacks is null throughout."""
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    )


def day_of(column: str = "timestamp") -> pl.Expr:
    """Return the UTC day of a column of unix seconds."""
    return pl.from_epoch(pl.col(column), time_unit="s").dt.date()


def total(column: str) -> pl.Expr:
    """Return a group's sum of a column, added up in the group's order, null where no value is known.

    A plain sum says 0 there, and adds parts of a unit in an order of its own, which no other engine has.
    """
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).implode().list.sum().first()).alias(column)
