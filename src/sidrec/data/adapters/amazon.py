"""Amazon-style folders: `interactions.parquet` ordered by `seq_pos`, and `items.parquet`.

Where timestamps are unknown there is an order but no calendar. Such a file is refused, or, if the recipe says
`derive_times: true`, every user's events are put on the days before `as_of`, one a day, newest last: then
`gate_days: 1` is leave-one-out, and nothing about real days, volumes or ages can be said.
"""

from datetime import date

import polars as pl

from sidrec.clock import DAY_S, day_start
from sidrec.data.adapters.items import ITEM_RULE, catalog_of, item_formats, item_table
from sidrec.data.adapters.source import (
    ColumnFormat,
    RawTables,
    Source,
    SourceRefusedError,
    identifier,
    read_table,
    unix_seconds,
)
from sidrec.data.config import DataConfig
from sidrec.data.events import PARSED, conform
from sidrec.data.rows import RowRule

EVENT_COLUMNS = ("user_id", "item_id", "timestamp", "seq_pos")
ITEM_COLUMNS = ("item_id", "title")

RULES = (
    RowRule(rule="A1", name="no_item", column="item_id", required=True, reason="item_id is empty"),
    RowRule(rule="A2", name="no_user", column="user_id", required=True, reason="user_id is empty"),
    RowRule(rule="A3", name="unknown_item", **ITEM_RULE),
)

EVENT_FORMATS = (
    ColumnFormat(column="user_id", meaning="user ids", max_null_share=0.01),
    ColumnFormat(column="item_id", meaning="item ids", max_null_share=0.01),
    ColumnFormat(column="timestamp", meaning="unix seconds", pattern=r"^\d{8,10}$"),
    ColumnFormat(column="seq_pos", meaning="places in the user's order", pattern=r"^\d{1,6}$", max_null_share=0.0),
)


class Amazon:
    """Reads a folder of the two files, or the two paths by name."""

    def __init__(self, config: DataConfig, as_of: date) -> None:
        folder = config.events
        is_folder = folder.is_dir()
        self._events = folder / "interactions.parquet" if is_folder else folder
        self._items = config.items or self._events.with_name("items.parquet")
        self._derive_times = config.derive_times
        self._as_of = as_of

    def read(self) -> RawTables:
        """Return interactions and items."""
        paths = {"events": self._events, "items": self._items}
        return RawTables(paths, read_table(self._events), read_table(self._items))

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that both files must have."""
        return {"events": EVENT_COLUMNS, "items": ITEM_COLUMNS}

    def formats(self, raw: RawTables) -> tuple[ColumnFormat, ...]:
        """Return what ids, times and order look like."""
        return (*EVENT_FORMATS, *item_formats("item_id", "title"))

    def parse(self, raw: RawTables) -> Source:
        """Return interactions in each user's own order; repeats are the source's and stay.

        Raises:
            SourceRefusedError: times are missing and the recipe does not allow deriving them.
        """
        assert raw.items is not None
        events = raw.events.with_columns(pl.col("seq_pos").cast(pl.Int64, strict=False))
        times = unix_seconds(pl.col("timestamp"), events["timestamp"].dtype, "s")
        unknown = int(events.select(times.is_null().sum()).item())
        if unknown and not self._derive_times:
            raise SourceRefusedError(
                "times_known",
                f"{unknown:,} of {events.height:,} rows have an order but no timestamp, and a split by time needs one; "
                "data.derive_times: true puts each user's events on the days before as_of, one a day",
                evidence=self._events,
            )
        by_order = pl.arg_sort_by("user_id", "seq_pos").arg_sort()
        later = pl.len().over("user_id") - pl.col("seq_pos").rank("ordinal").over("user_id")
        derived = day_start(self._as_of) - (later.cast(pl.Int64) + 1) * DAY_S
        rows = events.select(
            user_id=identifier(pl.col("user_id"), events["user_id"].dtype),
            item_id=identifier(pl.col("item_id"), events["item_id"].dtype),
            timestamp=derived if unknown else times,
            event_type=pl.lit("review"),
            position=by_order.cast(pl.Int64),
        )
        items = item_table(raw.items, {name: name for name in raw.items.columns})
        return Source(
            rows=conform(rows, PARSED).with_columns(catalog_of(items)),
            items=items,
            rules=RULES,
            merge_key=(),
            observed={"no_timestamp": unknown},
            has_calendar=not unknown,
            derived=(
                f"times of all {events.height:,} rows from each user's order ({unknown:,} had none): one event a day, "
                f"the newest the day before {self._as_of}"
                if unknown
                else None
            ),
        )
