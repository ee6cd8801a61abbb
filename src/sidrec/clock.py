"""One clock for features, decay, cold rules and windows: the wall's, or the event's.

Ledger, latency and verdict expiry always use the wall's.
"""

import time
from datetime import UTC, date, datetime
from typing import Literal

from sidrec.errors import UsageError

ClockMode = Literal["wall", "event"]
DAY_S = 86_400


def now(mode: ClockMode, event_time: int | None, as_of: int) -> int:
    """Return the request's time in unix seconds.

    Under `event` it is the request's own `event_time`, else the bundle's `as_of`, so a replay of old
    traffic sees features of the right age. Under `wall` it is the wall's time.

    Raises:
        UsageError: an `event_time` was sent under `wall`: a client must not choose the time there.
    """
    if mode == "wall":
        if event_time is not None:
            raise UsageError("event_time is refused: this revision runs on the wall's clock")
        return int(time.time())
    return as_of if event_time is None else event_time


def day_start(day: date) -> int:
    """Return midnight UTC of `day` in unix seconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def utc_now_iso() -> str:
    """Return the wall's time as ISO 8601 with seconds, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
