"""Row tier applied: every source row ends as an event, in quarantine, merged, or as a sale of nobody we know."""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import narwhals as nw

from sidrec.clock import day_start
from sidrec.data.adapters.source import PLACE, Source
from sidrec.data.tables import Engine, Kept, Rows
from sidrec.data.events import EVENTS, ITEMS_RAW
from sidrec.data.rows import RowRule, first_broken, reasons

WATERMARK_RULE = "W1"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The tables that validation hands on, and their source, each of its rows with the first `rule` it breaks or null."""

    source: Source
    rows: Kept
    events: Kept
    sales: Kept
    items_raw: Kept
    quarantine: Kept
    rules: tuple[RowRule, ...]


def clean(source: Source, engine: Engine, folder: Path, *, gate_start: date, watermark: date | None) -> Cleaned:
    """Return the batch cut at the watermark, cleaned by the source's rules, and its equal lines merged.

    Args:
        folder: where an engine that holds no table in memory puts them.
        watermark: first day that the extract does not hold whole; None: its last day is whole.
    """
    rules = source.rules if watermark is None else (_watermark_rule(watermark), *source.rules)
    rows = engine.keep(source.rows.with_columns(first_broken(rules)), folder / "rows")
    # Nothing refers to the rows without their rules any more, so memory has them once.
    source = replace(source, rows=rows.rows)
    fine = nw.col("rule").is_null()
    sales_only = nw.col("rule").is_in([rule.rule for rule in rules if rule.action == "sales_only"])
    sales = rows.rows.filter(fine | sales_only)
    events = _merge(sales.filter(fine), source.merge_key, engine)
    bad = rows.rows.filter(~fine & ~sales_only).select(PLACE, "rule", reasons(rules))
    return Cleaned(
        source=source,
        rows=rows,
        events=engine.keep(_by_time(events), folder / "events"),
        sales=engine.keep(_by_time(sales), folder / "sales"),
        items_raw=engine.keep(_items(sales, source.items, gate_start), folder / "items_raw"),
        quarantine=engine.keep(_shown(source.shown, bad), folder / "quarantine"),
        rules=rules,
    )


def _watermark_rule(watermark: date) -> RowRule:
    return RowRule(
        rule=WATERMARK_RULE,
        name="after_watermark",
        column="timestamp",
        at_most=day_start(watermark) - 1,
        reason=f"on or after {watermark}, the first day that the extract does not hold whole",
    )


def _by_time(rows: Rows) -> Rows:
    return rows.select(*EVENTS).sort("timestamp", "position")


def _merge(rows: Rows, key: tuple[str, ...], engine: Engine) -> Rows:
    """Return one row a key: quantities summed, everything else from the key's first line."""
    return rows.drop("quantity").join(engine.totals(rows, key), on="position") if key else rows


def _items(sales: Rows, items: Rows | None, gate_start: date) -> Rows:
    """Return the items sold before the gate window, with their canonical titles as known then."""
    known = sales.filter(nw.col("timestamp") < day_start(gate_start))
    if items is not None:
        return items.join(known.select("item_id"), on="item_id", how="semi").sort("item_id")
    # The title that most lines bear, and of equal ones the latest line's; no title only where no line has one.
    lines = nw.when(~nw.col("title").is_null()).then(nw.len().over("item_id", "title")).otherwise(nw.lit(0))
    titled = known.with_columns(lines=lines).unique("item_id", keep="last", order_by=["lines", "timestamp", "position"])
    absent = {name: nw.lit(None, dtype=nw.String) for name in ITEMS_RAW if name not in ("item_id", "title")}
    return titled.select("item_id", nw.col("title").fill_null(""), **absent).sort("item_id")


def _shown(shown: Rows, bad: Rows) -> Rows:
    """Return bad rows as the file has them, in its order, as text, with rule and reason.

    Lists and bytes have no text form; the row's place and its other columns identify it.
    """
    types = shown.collect_schema()
    names = [name for name, dtype in types.items() if not (dtype.is_nested() or dtype == nw.Binary) and name != PLACE]
    ours = {name: f"source_{name}" if name in ("rule", "reason") else name for name in names}
    rows = shown.select(PLACE, *names).rename(ours).join(bad, on=PLACE).sort(PLACE)
    return rows.select(*(nw.col(name).cast(nw.String) for name in ours.values()), "rule", "reason")
