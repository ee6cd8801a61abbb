"""Which rows a report compares: Monday weeks of exposures and purchases, and which purchase follows which answer.

Every time here is the event clock's (`event_time`), so a replay of old traffic falls into its own old weeks.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from sidrec import exposure
from sidrec.clock import DAY_S, day_start

ATTRIBUTION_DAYS = 7
PURCHASE_KEY = ["user_id", "day", "item_id"]
_OUTCOME_ORDER = ["event_time", "event_id"]


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


def newest_week(*frames: pl.LazyFrame) -> Window | None:
    """Return the week of the newest `event_time` in any of the tables, None when all are empty."""
    newest = [frame.select(pl.col("event_time").max()).collect().item() for frame in frames]
    seen = [time for time in newest if time is not None]
    return week_of(datetime.fromtimestamp(max(seen), UTC).date()) if seen else None


def scan_exposures(folder: Path) -> pl.LazyFrame:
    """Return the exposure log lazily: the report reads only the columns and the weeks that it needs."""
    return exposure.scan(folder)


def newest_bundle(exposures: pl.LazyFrame) -> str | None:
    """Return the bundle that answered last, None before the first answer."""
    last = exposures.select("wall_time_ms", "bundle_id").sort("wall_time_ms").last().collect()
    return None if last.is_empty() else str(last["bundle_id"].item())


def distinct_requests(exposures: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a request id, the one logged first: a replayed or retried request counts once.

    Only ids (as 64-bit hashes) and times are read here, and only the rows to leave out are kept, so the log stays lazy.
    """
    order = exposures.select(pl.col("request_id").hash(), "wall_time_ms").with_row_index("row").collect()
    repeated = order.filter(pl.col("request_id").is_duplicated()).sort("wall_time_ms", "row")
    later = repeated.filter(~pl.col("request_id").is_first_distinct())["row"]
    if later.is_empty():
        return exposures
    return exposures.with_row_index("row").filter(~pl.col("row").is_in(later.implode())).drop("row")


def basket_purchases(baskets: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per user, UTC day and item of a basket table."""
    return baskets.select("user_id", "day", item_id="item_ids").explode("item_id").unique(PURCHASE_KEY)


def outcome_purchases(outcomes: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per user, UTC day and item of the outcome log: a day's repeats are one purchase."""
    day = pl.from_epoch("event_time", time_unit="s").dt.date().alias("day")
    return outcomes.select("user_id", day, "item_id").unique(PURCHASE_KEY)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where every outcome of a window went: outcomes = by_request + by_item + unmatched."""

    requests: int
    outcomes: int
    by_request: int
    by_item: int
    unmatched: int
    hits: pl.DataFrame

    @property
    def requests_with_hit(self) -> int:
        """Counted requests of whose items at least one was bought."""
        return self.hits.filter("counted")["request_id"].n_unique()

    @property
    def hit_rate(self) -> float:
        """Share of the counted requests with a hit, so far."""
        return self.requests_with_hit / self.requests if self.requests else 0.0

    def as_dict(self) -> dict[str, int | float]:
        """Return the counts and the hit rate."""
        return {
            "requests": self.requests,
            "outcomes": self.outcomes,
            "by_request": self.by_request,
            "by_item": self.by_item,
            "unmatched": self.unmatched,
            "hits": self.hits.height,
            "requests_with_hit": self.requests_with_hit,
            "hit_rate": self.hit_rate,
        }


def attribute_window(exposures: pl.LazyFrame, outcomes: pl.LazyFrame, window: Window) -> Attribution:
    """Return where the outcomes of a window went; they may follow requests of the week before it.

    Only requests inside the window count in the hit rate. Those of its last days are still owed labels.
    """
    first, after = window.bounds
    shown = exposures.filter(pl.col("event_time") >= first - ATTRIBUTION_DAYS * DAY_S, pl.col("event_time") < after)
    return attribute(shown, window.rows(outcomes), count_from=first)


def attribute(exposures: pl.LazyFrame, outcomes: pl.LazyFrame, *, count_from: int = 0) -> Attribution:
    """Return which of the items that distinct requests exposed were bought.

    An outcome belongs to the request it names; else to the earliest request that showed this item to this user
    in the 7 days before it. An exposed item counts as a hit once, by its first outcome.

    Args:
        count_from: requests before this time take outcomes but are not counted.
    """
    events = outcomes.unique("event_id", keep="first", maintain_order=True).select(
        "event_id", "user_id", "item_id", "event_time", "request_id"
    )
    shown = exposures.select("request_id", "user_id", "wall_time_ms", "item_ids", exposed="event_time")
    named = events.join(
        shown.select("request_id", "exposed", "item_ids"), on="request_id", how="inner", maintain_order="left"
    )
    on_list = named.filter(pl.col("item_ids").list.contains(pl.col("item_id")))
    rest = events.join(shown.select("request_id"), on="request_id", how="anti").drop("request_id")
    pairs = (
        shown.join(rest.select("user_id").unique(), on="user_id", how="semi")
        .select("request_id", "user_id", "wall_time_ms", "exposed", item_id="item_ids")
        .explode("item_id")
    )
    waited = pl.col("event_time") - pl.col("exposed")
    by_item = (
        rest.join(pairs, on=["user_id", "item_id"], how="inner")
        .filter(waited >= 0, waited <= ATTRIBUTION_DAYS * DAY_S)
        .sort("exposed", "wall_time_ms", "request_id")
        .unique("event_id", keep="first", maintain_order=True)
    )
    columns = ["request_id", "item_id", "event_id", "event_time", "exposed"]
    hits = (
        pl.concat([on_list.select(columns), by_item.select(columns)])
        .with_columns(counted=pl.col("exposed") >= count_from)
        .sort(_OUTCOME_ORDER)
        .unique(["request_id", "item_id"], keep="first", maintain_order=True)
    )
    counted = shown.filter(pl.col("exposed") >= count_from)
    num_events, num_shown, num_named, num_by_item, hit_rows = pl.collect_all(
        [events.select(pl.len()), counted.select(pl.len()), named.select(pl.len()), by_item.select(pl.len()), hits],
        engine="streaming",
    )
    total, matched_request, matched_item = num_events.item(), num_named.item(), num_by_item.item()
    return Attribution(
        requests=num_shown.item(),
        outcomes=total,
        by_request=matched_request,
        by_item=matched_item,
        unmatched=total - matched_request - matched_item,
        hits=hit_rows,
    )
