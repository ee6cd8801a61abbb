"""Batch facts on hand-made days."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sidrec.clock import day_start
from sidrec.data.adapters.source import PLACE, Source
from sidrec.data.cleaning import clean
from sidrec.data.config import ValidationConfig
from sidrec.data.counting import Counts, count
from sidrec.data.events import PARSED, conform
from sidrec.data.facts import Fact, batch_facts
from sidrec.data.tables import Polars

LAST = date(2026, 3, 12)
AS_OF = LAST + timedelta(days=1)
GATE_START = AS_OF - timedelta(days=20)


def batch(volumes: dict[date, int], watermark: date | None = None, **more: Any) -> Counts:
    """A batch with so many sales on each day."""
    times = [day_start(day) + n for day, count in sorted(volumes.items()) for n in range(count)]
    rows = pl.DataFrame(
        {
            "user_id": ["u"] * len(times),
            "item_id": ["i"] * len(times),
            "timestamp": times,
            "position": range(len(times)),
        },
        schema_overrides={"timestamp": pl.Int64, "position": pl.Int64},
    )
    rows = conform(rows, PARSED).with_columns(pl.col("position").alias(PLACE))
    return counts(rows, watermark, **more)


def counts(rows: pl.DataFrame, watermark: date | None = None, **more: Any) -> Counts:
    """What is counted of rows that no rule forbids."""
    engine, nowhere = Polars(), Path()
    lifted = engine.lift(rows, nowhere)
    source = Source(rows=lifted, shown=lifted, items=None, rules=(), merge_key=(), **more)
    return count(clean(source, engine, nowhere, gate_start=GATE_START, watermark=watermark))


def facts(volumes: dict[date, int], limits: ValidationConfig | None = None, **more: Any) -> dict[str, list[Fact]]:
    """The batch's facts by rule."""
    counted = batch(volumes, **more)
    found: dict[str, list[Fact]] = {}
    for fact in batch_facts(counted, limits or ValidationConfig(), gate_start=GATE_START, as_of=AS_OF):
        found.setdefault(fact.rule, []).append(fact)
    return found


def weeks(*counts: int) -> dict[date, int]:
    """Volumes of the last day and the equal weekdays before it, newest first; 0 is a day without a row."""
    return {LAST - timedelta(weeks=n): count for n, count in enumerate(counts) if count}


def test_last_day_is_judged_by_the_median_of_eight_equal_weekdays() -> None:
    """Other weekdays and the ninth week back do not count; the median is that of eight days."""
    volumes = weeks(10, 20, 20, 20, 30, 50, 50, 50, 50, 900)
    volumes |= {LAST - timedelta(days=1): 700}

    (fact,) = facts(volumes)["last_day_volume"]

    assert fact.value == 10 / 40
    assert fact.at_least == 0.25
    assert "2026-03-12 has 10 sales, 25% of the median 40 of its last 8 Thursdays" in fact.sentence


def test_a_weekday_without_sales_counts_as_zero() -> None:
    """A closed Thursday lowers the median like any other."""
    (fact,) = facts(weeks(10, 20, 20, 20, 20, 0, 0, 0, 40))["last_day_volume"]

    assert fact.value == 10 / 20


@pytest.mark.parametrize(
    ("volumes", "why"),
    [
        (weeks(10, 20, 20, 20), "less than 8 weeks"),
        (weeks(10, 0, 0, 0, 0, 0, 5, 5, 5), "most Thursdays"),
    ],
)
def test_too_little_past_is_said_not_guessed(volumes: dict[date, int], why: str) -> None:
    """Without eight weeks, or on a weekday that is mostly closed, the volume is not checked, and why."""
    (fact,) = facts(volumes)["last_day_volume"]

    assert fact.value is None
    assert why in fact.sentence


def test_the_last_day_before_as_of_is_judged_too() -> None:
    """A file that runs past `as_of` has two last days: its own and the last one that is used."""
    volumes = weeks(1, *[20] * 9)
    volumes |= {AS_OF + timedelta(days=n - 7 * week): 30 for n in range(3) for week in range(10)}

    checked = facts(volumes)["last_day_volume"]

    assert [fact.value for fact in checked] == [1.0, 1 / 20]


def test_no_calendar_no_claims_about_days() -> None:
    """Derived times are checked for nothing that needs real days."""
    found = facts(weeks(*[20] * 9), ValidationConfig(max_age_days=1), has_calendar=False)

    assert [found[rule][0].value for rule in ("last_day_volume", "freshness")] == [None, None]


def test_freshness_counts_days_to_as_of() -> None:
    """The newest sale's age is measured against as_of, not against today."""
    (fact,) = facts({LAST - timedelta(days=9): 5}, ValidationConfig(max_age_days=3))["freshness"]

    assert (fact.value, fact.at_most) == (10, 3)


def test_windows_count_fit_and_gate_events() -> None:
    """An as_of beside the data shows as an empty window, with the data's span."""
    found = facts({GATE_START - timedelta(days=2): 7})

    assert (found["fit_window"][0].value, found["gate_window"][0].value) == (7, 0)
    assert f"the data span {GATE_START - timedelta(days=2)}" in found["gate_window"][0].sentence


def test_an_empty_batch_is_measured_without_failing() -> None:
    """All rows broken is a finding, not a crash."""
    absent = pl.DataFrame({PLACE: range(3), "position": range(3)}, schema=dict.fromkeys((PLACE, "position"), pl.Int64))
    nothing = counts(conform(absent, {**PARSED, PLACE: pl.Int64}), date(1970, 1, 1))

    found = batch_facts(nothing, ValidationConfig(), gate_start=GATE_START, as_of=AS_OF)

    assert found[0].rule == "timestamp_readable"
    assert found[0].value == 0
