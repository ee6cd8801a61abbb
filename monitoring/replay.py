"""Real traffic again: every basket asks for recommendations right before it is bought, in time order.

Request ids and event ids come from user, day and item, so a second replay adds no request and no event.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from monitoring import windows
from monitoring.windows import Window
from sidrec.errors import SidrecError
from sidrec.progress import track

SURFACE = "replay"
# Asked a second before the purchase: a history that ends at the request's time must not hold its own basket.
_ASKED_BEFORE_S = 1
_WORKERS = 8


class Answered(Protocol):
    """What the replay reads of an answer."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The items, best first."""

    @property
    def source(self) -> str:
        """Where the answer came from."""


class Pushed(Protocol):
    """What the replay reads of a push."""

    @property
    def new(self) -> int:
        """Events that were not known."""

    @property
    def duplicates(self) -> int:
        """Events that were."""


Ask = Callable[[str, Mapping[str, Any]], Answered]
Push = Callable[[Sequence[Mapping[str, Any]]], Pushed]


@dataclass(slots=True)
class Replayed:
    """What a replay did: requests = answers by source + errors."""

    requests: int = 0
    errors: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    requests_with_hit: int = 0
    purchases: int = 0
    new_purchases: int = 0
    seconds: float = 0.0
    first_error: str | None = None
    request_ids: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        value = asdict(self) | {"sources": dict(self.sources)}
        del value["request_ids"]
        return value


def baskets_of(baskets: Path, first: date, last: date) -> pl.DataFrame:
    """Return the baskets of the days from `first` to `last`, both included, in time order."""
    days = Window(first, last + timedelta(days=1)).days(pl.scan_parquet(baskets))
    return days.sort("time", "user_id").collect()


def replay(baskets: pl.DataFrame, ask: Ask, push: Push) -> Replayed:
    """Return what happened when each basket's customer asked, and then bought.

    A customer has one basket a day, so the requests of one day do not depend on its purchases: they are asked in
    time order, several at once, and the day's purchases are pushed before the next day asks.
    """
    done = Replayed()
    started = time.monotonic()
    days = baskets.partition_by("day", maintain_order=True)
    with ThreadPoolExecutor(_WORKERS) as pool:
        for day in track(days, "replay, days", total=len(days)):
            rows = day.to_dicts()
            for row, answer in zip(rows, pool.map(lambda row: _ask(ask, row), rows), strict=True):
                _count(done, row, answer)
            pushed = push([event for row in rows for event in purchase_events(row)])
            done.new_purchases += pushed.new
            done.purchases += pushed.new + pushed.duplicates
    done.seconds = round(time.monotonic() - started, 2)
    return done


def purchase_events(basket: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a basket's purchases as outcome events.

    They name no request: nobody bought because of a replayed answer, so only user and item can match.
    """
    return [
        {
            "event_id": _identity("purchase", basket["user_id"], str(basket["day"]), item),
            "user_id": basket["user_id"],
            "item_id": item,
            "event_type": "purchase",
            "event_time": basket["time"],
        }
        for item in basket["item_ids"]
    ]


def request_context(basket: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CONTEXT of the request that a basket's customer makes."""
    return {
        "request_id": _identity("request", basket["user_id"], str(basket["day"])),
        "event_time": basket["time"] - _ASKED_BEFORE_S,
        "surface": SURFACE,
    }


def wait_logged(exposures: Path, request_ids: Sequence[str], *, timeout_s: float) -> int:
    """Return how many of the requests the exposure log holds, as soon as it is all of them or the time is over."""
    wanted = set(request_ids)
    deadline = time.monotonic() + timeout_s
    while True:
        seen = set(windows.scan_exposures(exposures).select("request_id").collect()["request_id"])
        if wanted <= seen or time.monotonic() >= deadline:
            return len(wanted & seen)
        time.sleep(0.5)


def _ask(ask: Ask, basket: Mapping[str, Any]) -> Answered | SidrecError:
    try:
        return ask(basket["user_id"], request_context(basket))
    except SidrecError as error:
        return error


def _count(done: Replayed, basket: Mapping[str, Any], answer: Answered | SidrecError) -> None:
    done.requests += 1
    if isinstance(answer, SidrecError):
        done.errors += 1
        done.first_error = done.first_error or answer.message
        return
    done.request_ids.append(request_context(basket)["request_id"])
    done.sources[answer.source] += 1
    hits = len(set(answer.item_ids) & set(basket["item_ids"]))
    done.hits += hits
    done.requests_with_hit += hits > 0


def _identity(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"replay-{parts[0]}-{digest[:20]}"
