"""A pushed purchase is durable, counted once, and seen by the next read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.events import Pushed, push_events
from serving.history import HistoryReader
from sidrec import home, outcome
from sidrec.clock import DAY_S, day_start
from sidrec.errors import ServingError, UsageError
from tests import feature_world as world

NOW = day_start(world.AS_OF)
USER = "user-000 é"
PATIENT_MS = 20_000.0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[HistoryReader]:
    """A reader of a store whose users bought before December."""
    world.make_store(tmp_path)
    reader = HistoryReader(max_age_days=100_000)
    assert reader.wait_open(60)
    yield reader
    reader.close()


def _history(reader: HistoryReader, user_id: str = USER) -> list[tuple[str, int]]:
    answer = reader.read([user_id], now=NOW, deadline_ms=PATIENT_MS)[0]
    assert answer.status in ("fresh", "missing"), reader.last_error
    return list(zip(answer.item_ids, answer.times, strict=True))


def _event(number: int, **changes: object) -> dict[str, object]:
    return {"event_id": f"e{number}", "user_id": USER, "item_id": f"new-{number}", "event_time": NOW + number} | changes


def test_a_purchase_is_read_back_at_once(reader: HistoryReader) -> None:
    """Read your writes: the open reader shows it as the newest item, after what was stored."""
    before = _history(reader)

    pushed = push_events([_event(1)])

    assert pushed == Pushed(sent=1, new=1, duplicates=0, users=1)
    assert _history(reader) == [*before, ("new-1", NOW + 1)][-world.CAP :]
    assert outcome.read(home.outcomes_dir())["event_id"].to_list() == ["e1"]


def test_a_new_user_has_a_history_from_the_first_purchase_on(reader: HistoryReader) -> None:
    """Nobody is unknown after buying."""
    assert _history(reader, "newcomer ✓") == []

    push_events([_event(1, user_id="newcomer ✓"), _event(2, user_id="newcomer ✓")])

    assert _history(reader, "newcomer ✓") == [("new-1", NOW + 1), ("new-2", NOW + 2)]


def test_an_event_sent_again_changes_nothing(reader: HistoryReader) -> None:
    """Retries are safe: same outcomes, same history."""
    push_events([_event(1), _event(2)])
    before = _history(reader)

    again = push_events([_event(2), _event(1)])

    assert again == Pushed(sent=2, new=0, duplicates=2, users=0)
    assert _history(reader) == before
    assert outcome.read(home.outcomes_dir()).height == 2


def test_an_older_event_takes_its_place_and_overwrites_nothing(reader: HistoryReader) -> None:
    """Arriving late is not being newest."""
    push_events([_event(1, user_id="late", event_time=NOW + 5 * DAY_S)])
    push_events([_event(2, user_id="late", event_time=NOW + 2 * DAY_S), _event(3, user_id="late", event_time=NOW)])

    assert _history(reader, "late") == [("new-3", NOW), ("new-2", NOW + 2 * DAY_S), ("new-1", NOW + 5 * DAY_S)]


def test_history_is_capped_by_whole_days(reader: HistoryReader) -> None:
    """The oldest days make room; the row never grows beyond the cap."""
    for day in range(5):
        push_events([_event(10 * day + n, user_id="heavy", event_time=NOW + day * DAY_S + n) for n in range(5)])

    history = _history(reader, "heavy")

    assert [item_id for item_id, _ in history] == [f"new-{10 * day + n}" for day in (3, 4) for n in range(5)]


def test_a_bad_row_refuses_the_call_and_loses_nothing(reader: HistoryReader) -> None:
    """The good rows of a refused call are neither recorded nor shown, so sending all again is right."""
    before = _history(reader)
    bad = _event(2, event_time="soon")

    with pytest.raises(UsageError, match="1 of 2 events are refused, none was written: row 1: event_time"):
        push_events([_event(1), bad])

    assert _history(reader) == before
    assert outcome.read(home.outcomes_dir()).height == 0
    assert push_events([_event(1), bad | {"event_time": NOW}]).new == 2


def test_only_purchases_enter_a_history(reader: HistoryReader) -> None:
    """A view is an outcome, and nothing to recommend from."""
    before = _history(reader)

    pushed = push_events([_event(1, event_type="view")])

    assert (pushed.new, pushed.users) == (1, 0)
    assert _history(reader) == before
    assert outcome.read(home.outcomes_dir())["event_type"].to_list() == ["view"]


def test_no_events_are_no_work() -> None:
    """An empty call needs no store."""
    assert push_events([]) == Pushed(0, 0, 0, 0)


def test_without_a_store_events_are_recorded_and_shown_later(tmp_path: Path) -> None:
    """Nothing is lost before the first run: sending again, or the run itself, puts the store right."""
    with pytest.raises(ServingError, match="1 events are recorded, but the feature store does not show them"):
        push_events([_event(1, user_id="early")])
    assert outcome.read(home.outcomes_dir()).height == 1

    world.make_store(tmp_path)
    reader = HistoryReader(max_age_days=100_000)
    reader.wait_open(60)

    assert _history(reader, "early") == [("new-1", NOW + 1)]
    assert push_events([_event(1, user_id="early")]) == Pushed(sent=1, new=0, duplicates=1, users=0)
    reader.close()


def test_an_event_recorded_by_a_killed_push_is_shown_by_its_retry(reader: HistoryReader) -> None:
    """Killed between recording and pushing, the event is a duplicate for the log and news for the store."""
    event = outcome.Outcome.model_validate(_event(1))
    outcome.OutcomeLog(home.outcomes_dir()).append([event])

    pushed = push_events([event])

    assert pushed == Pushed(sent=1, new=0, duplicates=1, users=1)
    assert ("new-1", NOW + 1) in _history(reader)


def test_writers_that_race_lose_no_purchase(reader: HistoryReader) -> None:
    """Three writers push to one user at a time; its history holds what each of them sent."""

    def write(name: str) -> None:
        for number in range(4):
            push_events([_event(number, event_id=f"{name}{number}", user_id="raced", item_id=f"{name}{number}")])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, "abc"))

    expected = sorted(f"{name}{number}" for name in "abc" for number in range(4))
    assert sorted(item_id for item_id, _ in _history(reader, "raced")) == expected
