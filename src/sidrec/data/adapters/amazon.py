"""Amazon-style folders: `interactions.parquet` ordered by `seq_pos`, and `items.parquet`.

Where timestamps are unknown there is an order but no calendar. Such a file is refused, or, if the recipe says
`derive_times: true`, every user's events are put on the days before `as_of`, one a day, newest last: then
`gate_days: 1` is leave-one-out, and nothing about real days, volumes or ages can be said.
"""

from datetime import date
from pathlib import Path

import narwhals as nw
import polars as pl

from sidrec.clock import DAY_S, day_start
from sidrec.data.adapters.items import ITEM_RULE, item_formats, item_table, with_catalog
from sidrec.data.adapters.source import PLACE, ColumnFormat, Source, SourceRefusedError, identifier, unix_seconds
from sidrec.data.config import DataConfig
from sidrec.data.tables import Rows, counted
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

    def paths(self) -> dict[str, Path]:
        """Return interactions and items."""
        return {"events": self._events, "items": self._items}

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that both files must have."""
        return {"events": EVENT_COLUMNS, "items": ITEM_COLUMNS}

    def formats(self) -> tuple[ColumnFormat, ...]:
        """Return what ids, times and order look like."""
        return (*EVENT_FORMATS, *item_formats("item_id", "title"))

    def rows(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return interactions in the file's order, each with its place in the order of its user."""
        rows = events.select(
            PLACE,
            user_id=identifier(pl.col("user_id"), events["user_id"].dtype),
            item_id=identifier(pl.col("item_id"), events["item_id"].dtype),
            timestamp=unix_seconds(pl.col("timestamp"), events["timestamp"].dtype, "s"),
            event_type=pl.lit("review"),
            position=pl.col("seq_pos").cast(pl.Int64, strict=False),
        )
        return conform(rows, {**PARSED, PLACE: pl.Int64})

    def items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Return the items file in common columns."""
        return item_table(items, {name: name for name in items.columns})

    def source(self, rows: Rows, shown: Rows, items: Rows | None) -> Source:
        """Return interactions in each user's own order; repeats are the source's and stay.

        Raises:
            SourceRefusedError: times are missing and the recipe does not allow deriving them.
        """
        assert items is not None
        counts = counted(rows, rows=nw.len(), unknown=nw.col("timestamp").is_null().sum())
        unknown = counts["unknown"]
        if unknown and not self._derive_times:
            raise SourceRefusedError(
                "times_known",
                f"{unknown:,} of {counts['rows']:,} rows have an order but no timestamp, and a split by time needs "
                "one; data.derive_times: true puts each user's events on the days before as_of, one a day",
                evidence=self._events,
            )
        return Source(
            rows=with_catalog(_in_order(rows, self._as_of if unknown else None), items),
            shown=shown,
            items=items,
            rules=RULES,
            merge_key=(),
            observed={"no_timestamp": unknown},
            has_calendar=not unknown,
            derived=(
                f"times of all {counts['rows']:,} rows from each user's order ({unknown:,} had none): one event a day, "
                f"the newest the day before {self._as_of}"
                if unknown
                else None
            ),
        )


def _in_order(rows: Rows, as_of: date | None) -> Rows:
    """Return rows with their places in the order of users and each user's events, on the days before `as_of` if any.

    The users' totals are added up, not the rows': an engine that is many machines would bring all rows to one.
    """
    # An empty text comes first, as a missing user does, and joins with itself.
    rows = rows.with_columns(__user__=nw.col("user_id").fill_null(""))
    users = rows.group_by("__user__").agg(__all__=nw.len())
    users = users.with_columns(__until__=nw.col("__all__").cum_sum().over(order_by="__user__"))
    nth = nw.col(PLACE).cum_count().over("__user__", order_by=["position", PLACE])
    rows = rows.with_columns(__nth__=nth).join(users, on="__user__")
    changed = {"position": nw.col("__until__") - nw.col("__all__") + nw.col("__nth__") - 1}
    if as_of is not None:
        changed["timestamp"] = day_start(as_of) - (nw.col("__all__") - nw.col("__nth__") + 1) * DAY_S
    # By way of a float: DuckDB's sum of whole numbers is wider than they are, which Ibis does not know.
    rows = rows.with_columns(**{name: value.cast(nw.Float64).cast(nw.Int64) for name, value in changed.items()})
    return rows.drop("__user__", "__all__", "__until__", "__nth__")
