"""Requests of the evaluation hold what serving would have sent."""

from datetime import timedelta

from sidrec.clock import day_start
from sidrec.evaluation.histories import row_histories
from tests.basket_world import GATE_START, World, random_world

OLD, NEW = GATE_START - timedelta(days=40), GATE_START - timedelta(days=3)
TARGET = GATE_START + timedelta(days=2)
WORLD = World({"u": {OLD: ["a", "b"], NEW: ["c", "a"], TARGET: ["d"]}}, ["a", "b", "c", "d"])


def test_a_history_is_every_event_before_the_day_oldest_first() -> None:
    """Basket order, item order within the basket, and the basket's time."""
    (history,) = row_histories(WORLD.data(), cap=200)

    assert history.item_ids == ("a", "b", "c", "a")
    assert history.times == (day_start(OLD) + 36_000,) * 2 + (day_start(NEW) + 36_000,) * 2
    assert history.now == day_start(TARGET)


def test_a_cap_cuts_at_basket_borders_and_keeps_the_newest() -> None:
    """Three events do not fit two whole baskets, so the older one goes."""
    (history,) = row_histories(WORLD.data(), cap=3)

    assert history.item_ids == ("c", "a")


def test_no_history_reaches_its_own_day() -> None:
    """Every event is older than the row's midnight, on any data."""
    for seed in range(5):
        data = random_world(seed).data()
        assert all(max(history.times) < history.now for history in row_histories(data, cap=200))
