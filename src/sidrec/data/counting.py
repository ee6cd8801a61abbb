"""What accounting and the batch tier need to know of a batch, as numbers, whichever engine holds its rows."""

from dataclasses import dataclass
from datetime import date, timedelta

import narwhals as nw

from sidrec.clock import DAY_S
from sidrec.data.adapters.items import CATALOG_ITEM
from sidrec.data.adapters.table import EARLIEST, LATEST
from sidrec.data.cleaning import Cleaned
from sidrec.data.tables import Rows, counted, values
from sidrec.data.rows import RowRule, count_broken

_EPOCH = date(1970, 1, 1)
_CALENDAR = ((date.min - _EPOCH).days, (date.max - _EPOCH).days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of one batch; those of days hold the days that have any.

    `dropped` gives a row to the first rule that it breaks, `broken` to every one.
    """

    rules: tuple[RowRule, ...]
    rows: int
    dropped: dict[str, int]
    broken: dict[str, int]
    no_user: int
    known_times: int
    plausible_times: int
    with_item: int
    known_items: int = 0
    users_that_are_items: int
    observed: dict[str, int]
    has_items: bool
    has_calendar: bool
    derived: str | None
    quarantined: int
    sales: int
    sale_days: dict[date, int]
    events: int
    event_days: dict[date, int]
    users: int
    items: int
    orders: int
    baskets: int
    first: int | None
    last: int | None


def count(cleaned: Cleaned) -> Counts:
    """Return a batch's counts."""
    source = cleaned.source
    rows, events, sales = cleaned.rows.rows, cleaned.events.rows, cleaned.sales.rows
    times = nw.col("timestamp")
    seen = {
        "rows": nw.len(),
        "no_user": nw.col("user_id").is_null().sum(),
        "known_times": times.count(),
        "plausible_times": times.is_between(EARLIEST, LATEST).sum(),
        "with_item": nw.col("item_id").count(),
    }
    if source.items is not None:
        seen["known_items"] = nw.col(CATALOG_ITEM).count()
    known = nw.col("rule").is_null()
    [ends] = values(events.select(first=times.min(), last=times.max()))
    return Counts(
        rules=cleaned.rules,
        **counted(rows, **seen),
        dropped={one["rule"]: one["rows"] for one in values(rows.filter(~known).group_by("rule").agg(rows=nw.len()))},
        broken=count_broken(rows, cleaned.rules),
        users_that_are_items=_users_that_are_items(rows, source.items) if source.items is not None else 0,
        observed=source.observed,
        has_items=source.items is not None,
        has_calendar=source.has_calendar,
        derived=source.derived,
        quarantined=_height(cleaned.quarantine.rows),
        sales=_height(sales),
        sale_days=_days(sales),
        events=_height(events),
        event_days=_days(events),
        users=_different(events, "user_id"),
        items=_different(events, "item_id"),
        orders=_different(rows.filter(known, ~nw.col("order_id").is_null()), "order_id"),
        baskets=_different(events.with_columns(day=_day()), "user_id", "day"),
        **ends,
    )


def _height(rows: Rows) -> int:
    return counted(rows, rows=nw.len())["rows"]


def _different(rows: Rows, *columns: str) -> int:
    return _height(rows.group_by(*columns).agg(nw.len()))


def _day() -> nw.Expr:
    """Return the UTC day of a row, in days since 1970."""
    return nw.col("timestamp") // DAY_S


def _days(rows: Rows) -> dict[date, int]:
    # What no calendar has is no day: the range of times is a rule of its own.
    days = rows.with_columns(day=_day()).filter(nw.col("day").is_between(*_CALENDAR))
    days = days.group_by("day").agg(rows=nw.len())
    return {_EPOCH + timedelta(days=int(one["day"])): one["rows"] for one in values(days)}


def _users_that_are_items(rows: Rows, items: Rows) -> int:
    return _height(rows.join(items.select("item_id"), left_on="user_id", right_on="item_id", how="semi"))
