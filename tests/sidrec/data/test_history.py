"""A history is the newest whole days that fit, however its events arrived."""

from hypothesis import given
from hypothesis import strategies as st

from sidrec.clock import DAY_S
from sidrec.data.history import merge_events, running_histories

CAP = 6

# Day numbers and sizes; items are distinct within a day, times lie anywhere in it.
_days = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(0, DAY_S - 1)), unique_by=lambda day: day[0]
).map(sorted)


def _baskets(days: list[tuple[int, int, int]]) -> list[tuple[int, list[str]]]:
    return [(day * DAY_S + second, [f"{day}-{n}" for n in range(size)]) for day, size, second in days]


@given(_days)
def test_running_history_is_the_newest_whole_baskets_that_fit(days: list[tuple[int, int, int]]) -> None:
    """After every basket, counting back from the newest by hand gives the same events."""
    baskets = _baskets(days)

    for number, history in enumerate(running_histories(baskets, CAP)):
        expected: list[tuple[str, int]] = []
        for time, item_ids in reversed(baskets[: number + 1]):
            basket = [(item_id, time) for item_id in item_ids[-CAP:]]
            if len(expected) + len(basket) > CAP:
                break
            expected = basket + expected

        assert history == expected


@given(_days)
def test_pushing_baskets_one_by_one_gives_the_running_history(days: list[tuple[int, int, int]]) -> None:
    """The online rule and the offline rule are one rule."""
    baskets = _baskets(days)
    online: list[tuple[str, int]] = []

    for (time, item_ids), offline in zip(baskets, running_histories(baskets, CAP), strict=True):
        online = merge_events(online, [(item_id, time) for item_id in item_ids], CAP)
        assert online == offline


@given(_days, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter_below_the_cap(days: list[tuple[int, int, int]], rng) -> None:  # type: ignore[no-untyped-def]
    """Late events take their place in time."""
    events = [(item_id, time + n) for time, items in _baskets(days) for n, item_id in enumerate(items)]
    # Times of one day stay within it, and differ.
    events = [(item_id, min(time, (time // DAY_S + 1) * DAY_S - 1)) for item_id, time in events]
    shuffled = events.copy()
    rng.shuffle(shuffled)
    one_by_one: list[tuple[str, int]] = []
    for event in shuffled:
        one_by_one = merge_events(one_by_one, [event], 10_000)

    assert sorted(one_by_one) == sorted(events)
    assert [time for _, time in one_by_one] == sorted(time for _, time in events)


def test_an_item_counts_once_a_day_and_again_on_another() -> None:
    """A basket is a set; a re-buy on a later day is a new event."""
    history = [("tea", 10), ("cup", 20)]

    merged = merge_events(history, [("tea", 30), ("tea", DAY_S + 1)], CAP)

    assert merged == [("tea", 10), ("cup", 20), ("tea", DAY_S + 1)]


def test_cap_drops_whole_days_from_the_oldest() -> None:
    """The day that does not fit goes as a whole, not item by item."""
    history = [("a", 0), ("b", 0), ("c", DAY_S), ("d", DAY_S), ("e", DAY_S), ("f", DAY_S)]

    assert merge_events(history, [("g", 2 * DAY_S)], CAP) == [*history[2:], ("g", 2 * DAY_S)]
    assert merge_events(history, [], CAP) == history
