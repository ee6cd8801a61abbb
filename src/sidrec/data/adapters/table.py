"""Your own data: one file of events and one of items, whose columns the recipe names."""

from pathlib import Path

import narwhals as nw
import polars as pl

from sidrec.data.adapters.items import ITEM_RULE, item_formats, item_table, with_catalog
from sidrec.data.adapters.source import PLACE, ColumnFormat, Source, identifier, number, repeats, unix_seconds
from sidrec.data.config import DataConfig
from sidrec.data.tables import Rows, counted
from sidrec.data.events import PARSED, conform
from sidrec.data.rows import RowRule
from sidrec.errors import RecipeError

EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990-01-01 and 2100-01-01, UTC

RULES = (
    RowRule(rule="T1", name="no_item", column="item_id", required=True, reason="item_id is empty"),
    RowRule(rule="T2", name="no_time", column="timestamp", required=True, reason="timestamp is empty or no time"),
    RowRule(
        rule="T3",
        name="time_range",
        column="timestamp",
        at_least=EARLIEST,
        at_most=LATEST,
        reason="timestamp lies outside 1990..2100",
    ),
    RowRule(rule="T4", name="unknown_item", **ITEM_RULE),
    RowRule(rule="T5", name="quantity", column="quantity", above=0, reason="quantity is not above 0"),
    RowRule(rule="T6", name="price", column="price", at_least=0, reason="price is below 0"),
    RowRule(
        rule="T7",
        name="anonymous",
        column="user_id",
        required=True,
        reason="no user: counts for items, never for users",
        action="sales_only",
    ),
)


class Table:
    """Reads two files through the recipe's column maps; a column that is not mapped has our name or is absent."""

    def __init__(self, config: DataConfig) -> None:
        if config.items is None:
            raise RecipeError("data.items: the table adapter needs an items file (item_id and title at least)")
        self._paths = {"events": config.events, "items": config.items}
        self._unit = config.timestamp_unit
        self._event = {name: name for name in ("user_id", "item_id", "timestamp")} | config.event_columns
        self._item = {name: name for name in ("item_id", "title")} | config.item_columns

    def paths(self) -> dict[str, Path]:
        """Return both files."""
        return self._paths

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the mapped columns, by your names."""
        return {"events": tuple(self._event.values()), "items": tuple(self._item.values())}

    def formats(self) -> tuple[ColumnFormat, ...]:
        """Return which columns must be filled, and that numbers are numbers."""
        formats = [ColumnFormat(column=self._event["item_id"], meaning="item ids", max_null_share=0.05)]
        formats += [
            ColumnFormat(
                column=self._event[name], meaning="numbers", pattern=r"^\s*-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?\s*$"
            )
            for name in ("quantity", "price")
            if name in self._event
        ]
        return (*formats, *item_formats(self._item["item_id"], self._item["title"]))

    def rows(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return your events in common columns."""

        def dtype(name: str) -> pl.DataType:
            return events[self._event[name]].dtype

        def column(name: str) -> pl.Expr:
            return pl.col(self._event[name])

        values = {
            "user_id": identifier(column("user_id"), dtype("user_id")),
            "item_id": identifier(column("item_id"), dtype("item_id")),
            "timestamp": unix_seconds(column("timestamp"), dtype("timestamp"), self._unit),
            "event_type": pl.lit("purchase"),
            "position": pl.col(PLACE),
            PLACE: pl.col(PLACE),
        }
        if "event_type" in self._event:
            values["event_type"] = identifier(column("event_type"), dtype("event_type")).fill_null("purchase")
        values |= {name: number(column(name)) for name in ("quantity", "price") if name in self._event}
        return conform(events.select(**values), {**PARSED, PLACE: pl.Int64})

    def items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Return your items in common columns."""
        return item_table(items, self._item)

    def source(self, rows: Rows, shown: Rows, items: Rows | None) -> Source:
        """Return your events; equal user, item, time and type are one event."""
        assert items is not None
        observed = counted(rows, no_user=nw.col("user_id").is_null().sum())
        observed |= counted(shown, no_time=nw.col(self._event["timestamp"]).is_null().sum())
        return Source(
            rows=with_catalog(rows, items),
            shown=shown,
            items=items,
            rules=RULES,
            merge_key=("user_id", "item_id", "timestamp", "event_type"),
            observed={**observed, "exact_duplicate": repeats(shown)},
        )
