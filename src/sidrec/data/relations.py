"""`sidrec.data.baskets` as Ibis expressions, which DuckDB and Spark compute alike; tests hold all three equal.

No engine but polars keeps an order by itself, so what depends on one names it: a day's events are in the order of
`place`, and lists are sorted by it.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from sidrec.clock import DAY_S, day_start
from sidrec.data.baskets import RECENT_DAYS

if TYPE_CHECKING:
    import ibis.expr.types as ir  # type: ignore[import-untyped]

BASKETS = {
    "user_id": "string",
    "day": "date",
    "time": "int64",
    "item_ids": "array<string>",
    "quantities": "array<float64>",
}
ITEMS = {
    **dict.fromkeys(("item_id", "title", "brand", "categories", "description"), "string"),
    "popularity": "int64",
    "recent_popularity": "int64",
    "first_sold": "date",
}
# The second of a day and a row's place in the source in one whole number, 17 bits and 44.
_PLACES = 1 << 44


def baskets_of(events: "ir.Table", as_of: date) -> "ir.Table":
    """Return what `build_baskets` does."""
    events = events.filter(events.timestamp < day_start(as_of))
    days = _day_number(events.timestamp)
    events = events.mutate(day_number=days, place=(events.timestamp - days * DAY_S) * _PLACES + events.position)
    lines = events.group_by("user_id", "day_number", "item_id").agg(
        timestamp=events.timestamp.min(),
        place=events.place.min(),
        quantity=_total(events.place, events.quantity),
    )
    baskets = lines.group_by("user_id", "day_number").agg(
        time=lines.timestamp.min(),
        item_ids=_in_order(lines.place, lines.item_id),
        quantities=_in_order(lines.place, lines.quantity),
    )
    return _conform(baskets.mutate(day=_date(baskets.day_number)), BASKETS).order_by("user_id", "day")


def catalogue_of(sales: "ir.Table", items_raw: "ir.Table", baskets: "ir.Table", gate_start: date) -> "ir.Table":
    """Return what `build_items` does."""
    sales = sales.filter(sales.timestamp < day_start(gate_start))
    first_sold = sales.group_by("item_id").agg(first_sold=_date(_day_number(sales.timestamp).min()))
    fit = baskets.filter(baskets.day < gate_start).select("day", item_id=baskets.item_ids.unnest())
    recent = fit.day >= gate_start - timedelta(days=RECENT_DAYS)
    # Counts, not sums: a sum of whole numbers is wider than they are, in DuckDB.
    counts = fit.group_by("item_id").agg(popularity=fit.count(), recent_popularity=fit.count(where=recent))
    items = items_raw.join(first_sold, "item_id").join(counts, "item_id", how="left")
    items = items.mutate(
        popularity=items.popularity.fill_null(0), recent_popularity=items.recent_popularity.fill_null(0)
    )
    return _conform(items, ITEMS).order_by("item_id")


def window_counts(baskets: "ir.Table", gate_start: date) -> "ir.Table":
    """Return how many baskets and users the fit and the gate window have, and the first and the last day."""
    in_fit = baskets.day < gate_start
    return baskets.aggregate(
        fit_baskets=baskets.count(where=in_fit),
        gate_baskets=baskets.count(where=~in_fit),
        fit_users=baskets.user_id.nunique(where=in_fit),
        gate_users=baskets.user_id.nunique(where=~in_fit),
        first_day=baskets.day.min().cast("string"),
        last_day=baskets.day.max().cast("string"),
    )


def totals_of(lines: "ir.Table", key: tuple[str, ...]) -> "ir.Table":
    """Return each key's first position and the total of its quantities."""
    return (
        lines.group_by(*key)
        .agg(position=lines.position.min(), quantity=_total(lines.position, lines.quantity))
        .select("position", "quantity")
    )


def _conform(rows: "ir.Table", schema: Mapping[str, str]) -> "ir.Table":
    """Return the schema's columns in its order and types (Ibis names)."""
    return rows.select(**{name: rows[name].cast(kind) for name, kind in schema.items()})


def _day_number(times: Any) -> Any:
    """Return the UTC day of unix seconds, in days since 1970."""
    return (times / DAY_S).floor().cast("int64")


def _date(days: Any) -> Any:
    import ibis

    # By way of a timestamp: DuckDB adds days to a date and gets one, which Ibis does not know.
    return (ibis.date(1970, 1, 1) + days.as_interval("D")).cast("timestamp").cast("date")


def _total(by: Any, values: Any) -> Any:
    """Return what `sidrec.data.events.total` does: a group's sum in the order of `by`, null where no value is known.

    Added up in one order, a sum is the same number in every run and on every engine.
    """
    import ibis

    known = _in_order(by, values).filter(lambda value: value.notnull())
    return (values.count() > 0).ifelse(known.sums(), ibis.null("float64"))


def _in_order(by: Any, values: Any) -> Any:
    """Return a group's values as a list in the order of `by`, nulls included."""
    import ibis

    pairs = ibis.struct({"by": by, "value": values}).collect().sort()
    return pairs.map(lambda pair: pair["value"])
