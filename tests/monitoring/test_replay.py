"""The replay asks before it buys, in order, and can be repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from monitoring import replay
from sidrec import exposure, home, outcome
from sidrec.errors import ServingError
from sidrec.outcome import Appended, OutcomeLog, parse_outcomes
from tests.monitoring.drift_world import at, exposed, write_exposures

MONDAY = date(2010, 11, 1)


@dataclass(frozen=True)
class Answer:
    item_ids: tuple[str, ...]
    source: str = "model"


@pytest.fixture
def baskets() -> pl.DataFrame:
    """Three users on two days."""
    rows = [
        {"user_id": user, "day": date(2010, 11, day), "time": at(date(2010, 11, day), second), "item_ids": items}
        for user, day, second, items in (
            ("a", 1, 10, ["i1", "i2"]),
            ("b", 1, 20, ["i3"]),
            ("a", 2, 30, ["i1"]),
        )
    ]
    return pl.DataFrame(rows)


def record(events: Sequence[Mapping[str, Any]]) -> Appended:
    """Push into this test's outcome log."""
    return OutcomeLog(home.outcomes_dir()).append(parse_outcomes(events))


def test_every_basket_asks_and_then_buys(baskets: pl.DataFrame) -> None:
    """Counts say what happened: one request a basket, one purchase an item, hits where the answer held the item."""
    done = replay.replay(baskets, lambda user, context: Answer(("i1", "i9")), record)

    assert (done.requests, done.errors, dict(done.sources)) == (3, 0, {"model": 3})
    assert (done.purchases, done.new_purchases, done.hits, done.requests_with_hit) == (4, 4, 2, 2)


def test_a_customer_asks_after_all_its_earlier_purchases_and_before_its_own(baskets: pl.DataFrame) -> None:
    """At each request the log holds exactly what happened on earlier days."""
    seen: dict[tuple[str, int], list[str]] = {}

    def ask(user: str, context: Mapping[str, Any]) -> Answer:
        known = outcome.read(home.outcomes_dir()).filter(pl.col("user_id") == user)
        seen[user, context["event_time"]] = known["item_id"].to_list()
        assert (known["event_time"] < context["event_time"]).all()
        return Answer(())

    replay.replay(baskets, ask, record)

    assert seen == {
        ("a", at(MONDAY, 9)): [],
        ("b", at(MONDAY, 19)): [],
        ("a", at(date(2010, 11, 2), 29)): ["i1", "i2"],
    }


def test_a_second_replay_adds_nothing(baskets: pl.DataFrame) -> None:
    """Request ids and event ids repeat, so events are known and requests count once."""
    asked: list[str] = []

    def ask(user: str, context: Mapping[str, Any]) -> Answer:
        asked.append(context["request_id"])
        return Answer(("i1",))

    replay.replay(baskets, ask, record)
    again = replay.replay(baskets, ask, record)

    assert (again.purchases, again.new_purchases) == (4, 0)
    assert len(asked) == 6
    assert len(set(asked)) == 3


def test_an_unanswered_request_is_counted_and_the_replay_goes_on(baskets: pl.DataFrame) -> None:
    """An error is a number with its reason; the customer buys all the same."""

    def ask(user: str, context: Mapping[str, Any]) -> Answer:
        if user == "b":
            raise ServingError("no answer in time")
        return Answer(("i1",))

    done = replay.replay(baskets, ask, record)

    assert (done.requests, done.errors, done.first_error, done.purchases) == (3, 1, "no answer in time", 4)


def test_the_first_week_of_november_is_435_baskets(retail: Path) -> None:
    """The days named, both included, in time order."""
    rows = replay.baskets_of(retail, MONDAY, date(2010, 11, 7))

    assert rows.height == 435
    assert rows["time"].is_sorted()
    assert (rows["day"].min(), rows["day"].max()) == (MONDAY, date(2010, 11, 7))


def test_waits_for_the_exposure_log() -> None:
    """What the server has flushed is counted; what it has not is missed once the time is over."""
    write_exposures([exposed("r1", "a", at(MONDAY), ["i1"])])

    assert replay.wait_logged(home.exposures_dir(), ["r1"], timeout_s=5) == 1
    assert replay.wait_logged(home.exposures_dir(), ["r1", "r2"], timeout_s=0.1) == 1
    assert exposure.read(home.exposures_dir()).height == 1
