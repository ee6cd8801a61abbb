"""The offline store's Parquet files, made from baskets and items.

A history row is stamped with the last second of its day: only then is the day's basket complete, so a
point-in-time join at any moment of that day cannot see it.
"""

from datetime import UTC, datetime

import polars as pl

from sidrec.clock import DAY_S
from sidrec.data.history import running_histories

_STAMP = pl.Datetime("us", "UTC")

_HISTORY_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "item_ids": pl.List(pl.String),
    "times": pl.List(pl.Int64),
    "event_timestamp": _STAMP,
}
HISTORY_SCHEMA = pl.Schema(_HISTORY_COLUMNS)
_TEXT_COLUMNS = ("title", "brand", "categories", "description")


def user_history(baskets: pl.DataFrame, cap: int) -> pl.DataFrame:
    """Return each user's capped history after each of its baskets.

    Args:
        baskets: sorted by user and day.
    """
    rows: dict[str, list[object]] = {name: [] for name in HISTORY_SCHEMA}
    for user in baskets.partition_by("user_id", maintain_order=True):
        pairs = list(zip(user["time"].to_list(), user["item_ids"].to_list(), strict=True))
        for (time, _), history in zip(pairs, running_histories(pairs, cap), strict=True):
            rows["user_id"].append(user["user_id"][0])
            rows["item_ids"].append([item_id for item_id, _ in history])
            rows["times"].append([time for _, time in history])
            rows["event_timestamp"].append(_end_of_day(time))
    return pl.DataFrame(rows, schema=HISTORY_SCHEMA)


def user_aggregates(baskets: pl.DataFrame) -> pl.DataFrame:
    """Return each user's counts after each of its baskets, first baskets first."""
    first_buys = (
        baskets.select("user_id", "day", "item_ids")
        .explode("item_ids")
        .group_by("user_id", "item_ids")
        .agg(pl.col("day").min())
        .group_by("user_id", "day")
        .len("new_items")
    )
    return (
        baskets.join(first_buys, on=["user_id", "day"], how="left")
        .sort("user_id", "day")
        .select(
            "user_id",
            num_baskets=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("user_id"),
            num_items=pl.col("item_ids").list.len().cast(pl.Int64).cum_sum().over("user_id"),
            num_distinct_items=pl.col("new_items").fill_null(0).cast(pl.Int64).cum_sum().over("user_id"),
            first_time=pl.col("time").first().over("user_id"),
            last_time=pl.col("time"),
            event_timestamp=((pl.col("time") // DAY_S + 1) * DAY_S - 1)
            .mul(1_000_000)
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC"),
        )
    )


def item_attributes(items: pl.DataFrame, known_at: int) -> pl.DataFrame:
    """Return the catalogue's attributes as they were known at `known_at`, missing text columns as null."""
    columns: list[pl.Expr] = [pl.col("item_id")]
    for name in _TEXT_COLUMNS:
        if name not in items.columns:
            columns.append(pl.lit(None, dtype=pl.String).alias(name))
        elif isinstance(items.schema[name], pl.List):
            columns.append(pl.col(name).list.join(" | "))
        else:
            columns.append(pl.col(name).cast(pl.String))
    columns += [pl.col(name).cast(pl.Int64) for name in ("popularity", "recent_popularity")]
    return items.select(*columns, pl.lit(datetime.fromtimestamp(known_at, UTC), dtype=_STAMP).alias("event_timestamp"))


def _end_of_day(time: int) -> datetime:
    return datetime.fromtimestamp((time // DAY_S + 1) * DAY_S - 1, UTC)
