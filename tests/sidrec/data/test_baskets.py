"""Baskets and the catalogue against plain Python, and the wall at `as_of`."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sidrec.clock import day_start
from sidrec.data.baskets import BASKETS, ITEMS, build_baskets, build_items
from sidrec.data.events import EVENTS, ITEMS_RAW, conform

AS_OF = date(2026, 3, 1)
GATE_START = date(2026, 2, 1)


def random_events(seed: int, rows: int = 800) -> pl.DataFrame:
    """Events of 12 users and 20 items from October to March, five days of them after `as_of`."""
    rng = np.random.default_rng(seed)
    low, high = day_start(date(2025, 10, 1)), day_start(AS_OF + timedelta(days=5))
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(12, size=rows)],
            "item_id": [f"i{n:02d}" for n in rng.integers(20, size=rows)],
            "timestamp": rng.integers(low // 3600, high // 3600, size=rows) * 3600,
            "quantity": rng.integers(1, 9, size=rows).astype(float),
            "position": np.arange(rows),
        }
    )
    return conform(frame, EVENTS).sort("timestamp", "position")


@pytest.fixture(params=["one range", "many"])
def ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users in ranges of some 80 events, or in one."""
    if request.param == "many":
        monkeypatch.setattr("sidrec.data.baskets.RANGE_EVENTS", 80)
        monkeypatch.setattr("sidrec.data.baskets.SAMPLED_OF_A_RANGE", 20)


def items_of(events: pl.DataFrame) -> pl.DataFrame:
    known = events.filter(pl.col("timestamp") < day_start(GATE_START))["item_id"].unique()
    return conform(pl.DataFrame({"item_id": known, "title": known}), ITEMS_RAW)


def day(timestamp: int) -> date:
    return datetime.fromtimestamp(timestamp, UTC).date()


@pytest.mark.usefixtures("ranges")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_baskets_agree_with_plain_python(seed: int) -> None:
    """A basket is the day's items in source order, each once, its quantities summed, timed at its first event."""
    events = random_events(seed)
    expected: dict[tuple[str, date], dict[str, float]] = defaultdict(dict)
    times: dict[tuple[str, date], int] = {}
    for row in events.iter_rows(named=True):
        key = (row["user_id"], day(row["timestamp"]))
        if key[1] >= AS_OF:
            continue
        times.setdefault(key, row["timestamp"])
        expected[key][row["item_id"]] = expected[key].get(row["item_id"], 0) + row["quantity"]

    baskets = build_baskets(events, AS_OF)

    assert list(baskets.schema.items()) == list(BASKETS.items())
    assert [(r["user_id"], r["day"]) for r in baskets.iter_rows(named=True)] == sorted(expected)
    for row in baskets.iter_rows(named=True):
        key = (row["user_id"], row["day"])
        assert row["time"] == times[key]
        assert list(zip(row["item_ids"], row["quantities"], strict=True)) == list(expected[key].items())


@pytest.mark.parametrize("seed", [0, 1])
def test_catalogue_agrees_with_plain_python(seed: int) -> None:
    """Popularity counts fit baskets with the item, recent popularity those of the last 28 fit days."""
    events = random_events(seed)
    anonymous = events.head(40).with_columns(user_id=pl.lit(None, dtype=pl.String), item_id=pl.lit("anonymous_only"))
    sales = pl.concat([events, anonymous]).sort("timestamp", "position")
    baskets = build_baskets(events, AS_OF)
    counts: dict[str, int] = defaultdict(int)
    recent: dict[str, int] = defaultdict(int)
    for row in baskets.iter_rows(named=True):
        for item in set(row["item_ids"]):
            counts[item] += row["day"] < GATE_START
            recent[item] += GATE_START - timedelta(days=28) <= row["day"] < GATE_START
    first = {}
    for row in sales.iter_rows(named=True):
        if day(row["timestamp"]) < GATE_START:
            first.setdefault(row["item_id"], day(row["timestamp"]))

    items = build_items(sales, items_of(sales), baskets, GATE_START)

    assert list(items.schema.items()) == list(ITEMS.items())
    assert items["item_id"].to_list() == sorted(first)
    for row in items.iter_rows(named=True):
        item = row["item_id"]
        seen = (row["popularity"], row["recent_popularity"], row["first_sold"])
        assert seen == (counts.get(item, 0), recent.get(item, 0), first[item])


def test_nothing_on_or_after_as_of_changes_a_byte() -> None:
    """Baskets and catalogue are the same whether the days from `as_of` on exist, are gone or are doubled."""
    events = random_events(3)
    before = events.filter(pl.col("timestamp") < day_start(AS_OF))
    after = events.filter(pl.col("timestamp") >= day_start(AS_OF))
    assert after.height > 0

    made = []
    for variant in (events, before, pl.concat([before, after, after.with_columns(item_id=pl.lit("late"))])):
        baskets = build_baskets(variant, AS_OF)
        made.append((baskets, build_items(variant, items_of(variant), baskets, GATE_START)))

    assert made[0][0].equals(made[1][0])
    assert made[0][0].equals(made[2][0])
    assert made[0][1].equals(made[1][1])
    assert made[0][1].equals(made[2][1])


def test_gate_window_leaves_the_catalogue_alone() -> None:
    """What is sold in the gate window changes neither which items exist nor how popular they are."""
    events = random_events(4)
    fit_only = events.filter(pl.col("timestamp") < day_start(GATE_START))

    catalogues = [
        build_items(variant, items_of(events), build_baskets(variant, AS_OF), GATE_START)
        for variant in (events, fit_only)
    ]

    assert catalogues[0].equals(catalogues[1])


def test_unknown_quantities_stay_unknown() -> None:
    """A source without quantities gives null quantities, not zeros."""
    events = random_events(5).with_columns(quantity=pl.lit(None, dtype=pl.Float64))

    quantities = build_baskets(events, AS_OF)["quantities"].explode()

    assert quantities.null_count() == len(quantities)
