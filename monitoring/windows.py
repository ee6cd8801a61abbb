"""Which rows a report compares: Monday weeks of exposures and purchases, in pieces that fit into memory.

Every time here is the event clock's (`event_time`), so a replay of old traffic falls into its own old weeks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from sidrec import exposure
from sidrec.clock import day_start

PIECE_ROWS = 200_000
"""Exposures in memory at a time: some 200 MB with their lists."""
PURCHASE_KEY = ["user_id", "day", "item_id"]


@dataclass(frozen=True, slots=True)
class Window:
    """Days from `start` up to, but without, `end`."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start}..{self.end - timedelta(days=1)}"

    @property
    def bounds(self) -> tuple[int, int]:
        """First unix second inside, first unix second after."""
        return day_start(self.start), day_start(self.end)

    def previous(self, weeks: int) -> "Window":
        """Return the `weeks` weeks right before this window."""
        return Window(self.start - timedelta(weeks=weeks), self.start)

    def before(self, weeks: int) -> "Window":
        """Return the window of this length that lies `weeks` weeks earlier."""
        back = timedelta(weeks=weeks)
        return Window(self.start - back, self.end - back)

    def rows(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return the rows of a table whose `event_time` lies inside."""
        first, after = self.bounds
        return frame.filter(pl.col("event_time") >= first, pl.col("event_time") < after)

    def days(self, purchases: pl.LazyFrame) -> pl.LazyFrame:
        """Return the rows of a table whose `day` lies inside."""
        return purchases.filter(pl.col("day") >= self.start, pl.col("day") < self.end)


def week_of(day: date) -> Window:
    """Return the week from Monday that holds `day`."""
    monday = day - timedelta(days=day.weekday())
    return Window(monday, monday + timedelta(weeks=1))


def newest_time(*frames: pl.LazyFrame) -> int | None:
    """Return the watermark: the newest `event_time` in any of the tables, None when all are empty."""
    newest = [frame.select(pl.col("event_time").max()).collect().item() for frame in frames]
    return max((int(time) for time in newest if time is not None), default=None)


def newest_week(*frames: pl.LazyFrame) -> Window | None:
    """Return the week of the newest `event_time` in any of the tables, None when all are empty."""
    newest = newest_time(*frames)
    return None if newest is None else week_of(datetime.fromtimestamp(newest, UTC).date())


def scan_exposures(folder: Path) -> pl.LazyFrame:
    """Return the exposure log lazily: the report reads only the columns and the weeks that it needs."""
    return exposure.scan(folder)


def newest_bundle(exposures: pl.LazyFrame) -> str | None:
    """Return the bundle that answered last, None before the first answer."""
    last = exposures.select("wall_time_ms", "bundle_id").sort("wall_time_ms").last().collect()
    return None if last.is_empty() else str(last["bundle_id"].item())


def bundles_of(exposures: pl.LazyFrame) -> list[str]:
    """Return the bundles that answered, by id."""
    return sorted(exposures.select(pl.col("bundle_id").unique()).collect(engine="streaming")["bundle_id"])


def distinct_requests(exposures: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a request id, the one logged first: a replayed or retried request counts once.

    Only ids (as 64-bit hashes) and times are read here, and only the rows to leave out are kept, so the log stays lazy.
    """
    order = exposures.select(request=pl.col("request_id").hash(), wall_time_ms="wall_time_ms")
    later = repeated_rows(order.with_row_index("row").collect())
    if later.is_empty():
        return exposures
    return exposures.with_row_index("row").filter(~pl.col("row").is_in(later.implode())).drop("row")


def repeated_rows(order: pl.DataFrame) -> pl.Series:
    """Return the rows to leave out of a table of `row`, `request` and `wall_time_ms`, all but a request's first."""
    repeated = order.filter(pl.col("request").is_duplicated()).sort("wall_time_ms", "row")
    return repeated.filter(~pl.col("request").is_first_distinct())["row"]


def pieces(
    exposures: pl.LazyFrame, *, without: pl.Series | None = None, rows: int = PIECE_ROWS
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a lazy table in order, about `rows` at a time, those numbered in `without` left out."""
    start = 0
    for piece in exposures.collect_batches(chunk_size=rows, maintain_order=True):
        number = pl.int_range(start, start + piece.height, eager=True, dtype=pl.get_index_type())
        start += piece.height
        yield piece if without is None or without.is_empty() else piece.filter(~number.is_in(without.implode()))


def basket_purchases(baskets: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per user, UTC day and item of a basket table."""
    return baskets.select("user_id", "day", item_id="item_ids").explode("item_id").unique(PURCHASE_KEY)


def outcome_purchases(outcomes: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per user, UTC day and item of the outcome log: a day's repeats are one purchase."""
    day = pl.from_epoch("event_time", time_unit="s").dt.date().alias("day")
    return outcomes.select("user_id", day, "item_id").unique(PURCHASE_KEY)
