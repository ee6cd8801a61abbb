"""Row tier applied: every source row ends as an event, in quarantine, merged, or as a sale of nobody we know."""

from dataclasses import dataclass
from datetime import date

import polars as pl
import polars.selectors as cs

from sidrec.clock import day_start
from sidrec.data.adapters.source import Source
from sidrec.data.events import EVENTS, ITEMS_RAW, PARSED, conform, total
from sidrec.data.rows import RowRule, first_broken

WATERMARK_RULE = "W1"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The tables that validation hands on; `rule` holds each source row's first broken rule or null."""

    events: pl.DataFrame
    sales: pl.DataFrame
    items_raw: pl.DataFrame
    quarantine: pl.DataFrame
    rules: tuple[RowRule, ...]
    rule: pl.Series
    merged: int
    orders: int


def clean(raw: pl.DataFrame, source: Source, *, gate_start: date, watermark: date | None) -> Cleaned:
    """Return the batch cut at the watermark, cleaned by the source's rules, and its equal lines merged.

    Args:
        raw: the source rows as the file has them; the quarantine shows these.
        watermark: first day that the extract does not hold whole; None: its last day is whole.
    """
    rules = source.rules if watermark is None else (_watermark_rule(watermark), *source.rules)
    rule = first_broken(source.rows, rules)
    sales_only = [r.rule for r in rules if r.action == "sales_only"]
    rows = source.rows.with_columns(rule)
    sales = rows.filter(pl.col("rule").is_null() | pl.col("rule").is_in(sales_only))
    known = sales.filter(pl.col("rule").is_null())
    events = _merge(known, source.merge_key)
    reasons = {r.rule: r.reason for r in rules}
    # Lists and bytes have no text form; the row's place and its other columns identify it.
    shown = raw.select(~(cs.nested() | cs.binary())).select(pl.all().cast(pl.String))
    quarantine = (
        shown.rename({name: f"source_{name}" for name in ("rule", "reason") if name in shown.columns})
        .with_columns(rule)
        .filter(pl.col("rule").is_not_null() & ~pl.col("rule").is_in(sales_only))
        .with_columns(reason=pl.col("rule").replace_strict(reasons, return_dtype=pl.String))
    )
    return Cleaned(
        events=conform(events, EVENTS).sort("timestamp", "position"),
        sales=conform(sales, EVENTS).sort("timestamp", "position"),
        items_raw=_items(sales, source.items, gate_start),
        quarantine=quarantine,
        rules=rules,
        rule=rule,
        merged=known.height - events.height,
        orders=events["order_id"].n_unique() if events["order_id"].null_count() < events.height else 0,
    )


def _watermark_rule(watermark: date) -> RowRule:
    return RowRule(
        rule=WATERMARK_RULE,
        name="after_watermark",
        column="timestamp",
        at_most=day_start(watermark) - 1,
        reason=f"on or after {watermark}, the first day that the extract does not hold whole",
    )


def _merge(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Return one row a key: quantities summed, everything else from the key's first line."""
    if not key:
        return rows
    first = [pl.col(name).first() for name in PARSED if name not in key and name != "quantity"]
    return rows.sort("position").group_by(key, maintain_order=True).agg(*first, total("quantity"))


def _items(sales: pl.DataFrame, items: pl.DataFrame | None, gate_start: date) -> pl.DataFrame:
    """Return the items sold before the gate window, with their canonical titles as known then."""
    known = sales.filter(pl.col("timestamp") < day_start(gate_start))
    if items is not None:
        sold = known.select("item_id").unique()
        return items.join(sold, on="item_id", how="semi").sort("item_id")
    titles = (
        known.sort("timestamp", "position")
        .with_row_index("latest")
        .group_by("item_id", "title")
        .agg(pl.len().alias("rows"), pl.col("latest").max())
        .filter(pl.col("title").is_not_null())
        .sort("item_id", "rows", "latest", descending=[False, True, True])
        .unique("item_id", keep="first", maintain_order=True)
    )
    every = known.select("item_id").unique().join(titles, on="item_id", how="left")
    return conform(every.with_columns(pl.col("title").fill_null("")), ITEMS_RAW).sort("item_id")
