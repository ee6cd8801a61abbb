"""Labels that come late: quality by a plain loop, and which window is final."""

import random
from datetime import date
from math import log2

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring import labels, windows
from sidrec import exposure, outcome
from sidrec.exposure import Exposure
from sidrec.outcome import Outcome
from tests.monitoring.drift_world import at, bought, exposed

DAY = 86_400
WEEK = 7 * DAY


def by_loop(rows: list[Exposure], outcomes: list[Outcome], watermark: int) -> dict[str, tuple[int, float]]:
    """Return n and the sum of each metric, request by request."""
    found: dict[str, tuple[int, float]] = {}
    for row in rows:
        targets = {
            event.item_id
            for event in outcomes
            if event.user_id == row.user_id and 0 <= event.event_time - row.event_time <= WEEK
        }
        if row.event_time + WEEK > watermark or not targets:
            continue
        for k in labels.CUTOFFS:
            places = [place for place, item in enumerate(row.item_ids[:k], start=1) if item in targets]
            ideal = sum(1 / log2(place + 1) for place in range(1, min(k, len(targets)) + 1))
            values = {
                f"recall@{k}": len(places) / len(targets),
                f"ndcg@{k}": sum(1 / log2(place + 1) for place in places) / ideal,
            }
            for name, value in values.items():
                n, total = found.get(name, (0, 0.0))
                found[name] = n + 1, total + value
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_quality_equals_a_loop(seed: int) -> None:
    """Recall and NDCG at 5, 10 and 20 of requests whose labels are in, those without a hit counting as 0."""
    rng = random.Random(seed)
    items, users = [f"i{number}" for number in range(25)], ["a", "b", "c", None]
    rows = [
        exposed(f"r{number}", rng.choice(users), rng.randrange(20) * DAY, rng.sample(items, rng.randrange(0, 22)))
        for number in range(rng.randrange(1, 12))
    ]
    outcomes = {
        event.event_id: event
        for event in (bought(rng.choice("abc"), rng.choice(items), 1 + rng.randrange(25) * DAY) for _ in range(40))
    }
    watermark = 22 * DAY

    table = labels.quality(
        exposure.frame(rows), outcome.frame(list(outcomes.values())), by=["arm"], watermark=watermark
    )

    expected = by_loop(rows, list(outcomes.values()), watermark)
    assert {name: n for _, name, n, _, _ in table.iter_rows()} == {name: n for name, (n, _) in expected.items()}
    for _, name, _, total, _ in table.iter_rows():
        assert total == pytest.approx(expected[name][1])


def test_quality_by_hand() -> None:
    """One of two targets at place two: recall 1/2, NDCG (1 / log2 3) / (1 + 1 / log2 3)."""
    rows = [exposed("r", "a", 10, ["x", "y", "z"])]
    outcomes = [bought("a", "y", 20), bought("a", "w", 30), bought("a", "y", 40)]

    table = labels.quality(exposure.frame(rows), outcome.frame(outcomes), by=["arm"], watermark=10 + WEEK)
    values = dict(table.select("name", "total").iter_rows())

    assert values["recall@10"] == 0.5
    assert values["ndcg@10"] == pytest.approx((1 / log2(3)) / (1 + 1 / log2(3)))


def test_a_request_that_is_owed_labels_does_not_count() -> None:
    """A second before its seven days are over it has no recall yet, though it has a hit."""
    row, event = exposed("r", "a", 10, ["x"]), bought("a", "x", 20)

    early, late = (
        labels.quality(exposure.frame([row]), outcome.frame([event]), by=["arm"], watermark=10 + WEEK + wait)
        for wait in (-1, 0)
    )

    assert (early.height, late["n"].unique().to_list()) == (0, [1])


def test_a_window_is_final_when_its_last_second_has_its_labels() -> None:
    """The week of November 1 ends on Sunday; its labels are in a week later, not a second before."""
    week = windows.week_of(date(2010, 11, 1))
    final = at(date(2010, 11, 15)) - 1

    assert labels.is_final(week, final)
    assert not labels.is_final(week, final - 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_pieces_find_what_one_table_finds(seed: int) -> None:
    """An outcome's request, and the earliest that showed its item, may lie in different pieces."""
    rng = random.Random(seed)
    items = [f"i{number}" for number in range(4)]
    days = [rng.randrange(14) * DAY for _ in range(12)]
    rows = [
        exposed(f"r{number}", rng.choice("ab"), day, rng.sample(items, 2), wall_time_ms=number)
        for number, day in enumerate(days)
    ]
    named = [rng.choice([None, f"r{rng.randrange(14)}"]) for _ in range(10)]
    events_of = [bought(rng.choice("ab"), rng.choice(items), 1 + rng.randrange(20) * DAY, one) for one in named]
    outcomes = {event.event_id: event for event in events_of}
    events = outcome.frame(list(outcomes.values())).lazy()
    whole, pieces = labels.Matcher(events), labels.Matcher(events)
    whole.add(exposure.frame(rows))
    for row in rows:
        pieces.add(exposure.frame([row]))

    one, other = (matcher.attribution(12) for matcher in (whole, pieces))

    assert (one.by_request, one.by_item, one.unmatched) == (other.by_request, other.by_item, other.unmatched)
    assert one.hits.sort("event_id").equals(other.hits.sort("event_id"))


def test_no_outcomes_have_no_quality() -> None:
    """An empty outcome log gives an empty table, not an error."""
    empty: pl.DataFrame = outcome.SCHEMA.to_frame()

    assert labels.quality(exposure.frame([exposed("r", "a", 10, ["x"])]), empty, by=["arm"], watermark=WEEK).is_empty()
