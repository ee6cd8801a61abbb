"""One clock decides what now is."""

import time
from datetime import date

import pytest

from sidrec import clock
from sidrec.errors import UsageError


def test_event_clock_prefers_the_request() -> None:
    """Under `event`, the request's time is now."""
    assert clock.now("event", 123, as_of=999) == 123


def test_event_clock_falls_back_to_the_bundle() -> None:
    """Under `event`, a request without a time is answered as of the bundle's date."""
    assert clock.now("event", None, as_of=999) == 999


def test_wall_clock_refuses_a_client_time() -> None:
    """Under `wall`, a client cannot choose the time."""
    with pytest.raises(UsageError, match="event_time"):
        clock.now("wall", 123, as_of=999)


def test_wall_clock_is_the_walls() -> None:
    """Under `wall`, now is the system's time."""
    assert abs(clock.now("wall", None, as_of=0) - time.time()) < 5


def test_day_starts_at_midnight_utc() -> None:
    """The retail as-of date in unix seconds."""
    assert clock.day_start(date(2010, 12, 1)) == 1_291_161_600
