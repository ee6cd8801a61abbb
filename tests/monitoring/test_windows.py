"""Windows and attribution: Mondays, event time, and a brute-force join."""

import random
from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring import labels, windows
from monitoring.windows import Window
from sidrec import exposure, outcome
from sidrec.exposure import Exposure
from sidrec.outcome import Outcome
from tests.monitoring.drift_world import at, bought, exposed, write_exposures

DAY = 86_400


def table(rows: list[Exposure]) -> pl.LazyFrame:
    return exposure.frame(rows).lazy()


def events(rows: list[Outcome]) -> pl.LazyFrame:
    return outcome.frame(rows).lazy()


def brute_force(rows: list[Exposure], outcomes: list[Outcome]) -> tuple[int, int, int, set[tuple[str, str, str]]]:
    """Return by_request, by_item, unmatched and the hits (request, item, event), by plain loops."""
    requests: dict[str, Exposure] = {}
    for row in sorted(rows, key=lambda row: (row.wall_time_ms, row.request_id)):
        requests.setdefault(row.request_id, row)
    by_request = by_item = unmatched = 0
    hits: dict[tuple[str, str], str] = {}
    for event in sorted(outcomes, key=lambda event: (event.event_time, event.event_id)):
        named = requests.get(event.request_id or "")
        if named is not None:
            by_request += 1
            if event.item_id in named.item_ids:
                hits.setdefault((named.request_id, event.item_id), event.event_id)
            continue
        candidates = [
            row
            for row in requests.values()
            if row.user_id == event.user_id
            and event.item_id in row.item_ids
            and 0 <= event.event_time - row.event_time <= 7 * DAY
        ]
        if not candidates:
            unmatched += 1
            continue
        by_item += 1
        first = min(candidates, key=lambda row: (row.event_time, row.wall_time_ms, row.request_id))
        hits.setdefault((first.request_id, event.item_id), event.event_id)
    return by_request, by_item, unmatched, {(*pair, event_id) for pair, event_id in hits.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_attribution_equals_brute_force(seed: int) -> None:
    """The join gives every outcome the request that plain loops give it."""
    rng = random.Random(seed)
    items, users = [f"i{number}" for number in range(5)], ["a", "b", None]
    rows = [
        exposed(
            f"r{rng.randrange(12)}",
            rng.choice(users),
            rng.randrange(14) * DAY + rng.randrange(3),
            rng.sample(items, rng.randrange(1, 4)),
            wall_time_ms=rng.randrange(1000),
        )
        for _ in range(rng.randrange(1, 15))
    ]
    outcomes = {
        event.event_id: event
        for event in (
            bought(
                rng.choice(["a", "b"]),
                rng.choice(items),
                1 + rng.randrange(20) * DAY + rng.randrange(3),
                rng.choice([None, f"r{rng.randrange(14)}"]),
            )
            for _ in range(rng.randrange(1, 15))
        )
    }
    # Two rows of one request and one time of logging: which was first is not defined.
    rows = list({(row.request_id, row.wall_time_ms): row for row in rows}.values())

    seen = labels.attribute(windows.distinct_requests(table(rows)), events(list(outcomes.values())))

    found = set(seen.hits.select("request_id", "item_id", "event_id").iter_rows())
    assert (seen.by_request, seen.by_item, seen.unmatched, found) == brute_force(rows, list(outcomes.values()))
    assert seen.by_request + seen.by_item + seen.unmatched == seen.outcomes == len(outcomes)


def test_the_named_request_wins_over_user_and_item() -> None:
    """An outcome that names a request belongs to it, even if an earlier one showed the item too."""
    rows = [exposed("early", "a", 10, ["i1"]), exposed("named", "a", 20, ["i1"])]

    seen = labels.attribute(table(rows), events([bought("a", "i1", 30, "named")]))

    assert (seen.by_request, seen.hits["request_id"].to_list()) == (1, ["named"])


def test_a_named_request_without_the_item_is_no_hit() -> None:
    """The outcome is matched, but nothing that was recommended was bought."""
    seen = labels.attribute(table([exposed("r1", "a", 10, ["i1"])]), events([bought("a", "i2", 30, "r1")]))

    assert (seen.by_request, seen.hits.height, seen.hit_rate) == (1, 0, 0.0)


def test_the_first_exposure_takes_the_outcome() -> None:
    """Of two requests that showed the item, the earlier one gets it."""
    rows = [exposed("late", "a", 20, ["i1"]), exposed("early", "a", 10, ["i1"])]

    seen = labels.attribute(table(rows), events([bought("a", "i1", 30)]))

    assert seen.hits["request_id"].to_list() == ["early"]


@pytest.mark.parametrize(("wait", "hits"), [(0, 1), (7 * DAY, 1), (7 * DAY + 1, 0), (-1, 0)])
def test_an_outcome_counts_for_seven_days(wait: int, hits: int) -> None:
    """From the request's own second to seven days after it, and never before it."""
    seen = labels.attribute(table([exposed("r", "a", 100, ["i1"])]), events([bought("a", "i1", 100 + wait)]))

    assert (seen.hits.height, seen.unmatched) == (hits, 1 - hits)


def test_a_week_takes_labels_for_requests_of_the_week_before_but_does_not_count_them() -> None:
    """Monday's purchase of Sunday's item is matched; Sunday's request is in last week's rate, not in this one's."""
    monday = date(2010, 11, 8)
    rows = [exposed("sunday", "a", at(monday, -60), ["i1"]), exposed("monday", "b", at(monday, 60), ["i2"])]

    matcher = labels.Matcher(events([bought("a", "i1", at(monday, 120))]))
    matcher.add(table(rows).collect())
    first, after = windows.week_of(monday).bounds
    seen = matcher.attribution(1, since=first, until=after, count_from=first)

    assert (seen.outcomes, seen.by_item, seen.requests, seen.requests_with_hit) == (1, 1, 1, 0)


def test_a_request_id_counts_once() -> None:
    """A replay logs its requests again; the row that was logged first stands."""
    rows = [exposed("r", "a", 10, ["i2"], wall_time_ms=2), exposed("r", "a", 10, ["i1"], wall_time_ms=1)]

    assert windows.distinct_requests(table(rows)).collect()["item_ids"].to_list() == [["i1"]]


def test_a_log_without_repeats_is_read_as_it_is() -> None:
    """Every request stays, in its order, when none was logged twice."""
    rows = [exposed(name, "a", 10, ["i1"]) for name in ("r2", "r1", "r3")]

    assert windows.distinct_requests(table(rows)).collect()["request_id"].to_list() == ["r2", "r1", "r3"]


def test_weeks_begin_on_monday() -> None:
    """November 1, 2010 is a Monday; the Sunday before belongs to October's last week."""
    assert windows.week_of(date(2010, 11, 1)) == Window(date(2010, 11, 1), date(2010, 11, 8))
    assert windows.week_of(date(2010, 10, 31)).start == date(2010, 10, 25)
    assert str(windows.week_of(date(2010, 11, 7))) == "2010-11-01..2010-11-07"


def test_windows_hold_their_first_second_and_not_the_next_weeks() -> None:
    """Midnight on Monday is inside, midnight a week later is not."""
    week = windows.week_of(date(2010, 11, 1))
    rows = [exposed(str(time), "a", time, ["i1"]) for time in (week.bounds[0] - 1, *week.bounds)]

    assert week.rows(table(rows)).collect()["request_id"].to_list() == [str(week.bounds[0])]


def test_windows_follow_the_event_clock() -> None:
    """Requests served today about November 2010 are November's."""
    rows = [exposed("r", "a", at(date(2010, 11, 3)), ["i1"], wall_time_ms=1_800_000_000_000)]
    scanned = windows.scan_exposures(write_exposures(rows))

    assert windows.newest_week(scanned) == windows.week_of(date(2010, 11, 3))


def test_purchases_are_one_a_user_day_and_item() -> None:
    """Outcomes become what a basket table holds: the day's repeats are one purchase, the next day's is another."""
    monday = at(date(2010, 11, 1))
    rows = [bought("a", "i1", monday + 1), bought("a", "i1", monday + 2), bought("a", "i1", monday + DAY)]

    seen = windows.outcome_purchases(events(rows)).sort("day").collect()

    assert seen["day"].to_list() == [date(2010, 11, 1), date(2010, 11, 2)]


def test_outcomes_of_real_baskets_are_their_purchases(retail) -> None:  # type: ignore[no-untyped-def]
    """Pushing baskets as events and counting them back gives the baskets' own counts."""
    from monitoring import replay

    baskets = replay.baskets_of(retail, date(2010, 11, 1), date(2010, 11, 7))
    pushed = [Outcome(**event) for row in baskets.iter_rows(named=True) for event in replay.purchase_events(row)]

    back = windows.outcome_purchases(events(pushed)).sort(windows.PURCHASE_KEY).collect()

    assert back.height == 11_612
    assert back.equals(windows.basket_purchases(baskets.lazy()).sort(windows.PURCHASE_KEY).collect())
