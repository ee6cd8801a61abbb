"""Drift asks for one retrain at a time, and not sooner than the last one could be judged."""

from datetime import UTC, datetime, timedelta

from monitoring import retrain

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)
DAY = timedelta(days=1)


def ask(now: datetime) -> tuple[retrain.Request, bool]:
    return retrain.ask(who="triage", why="unseen items", now=now)


def test_the_first_request_is_due_at_once_and_asking_again_changes_nothing() -> None:
    """Drift that goes on for a week asks once."""
    first, new = ask(NOW)
    again, new_again = ask(NOW + DAY)

    assert (first.due_at, new) == (NOW, True)
    assert (again, new_again) == (first, False)
    assert retrain.due(now=NOW) == first


def test_the_next_request_waits_for_the_cool_down() -> None:
    """Three days after a retrain was taken, four are left."""
    ask(NOW)
    retrain.taken(now=NOW)
    request, _ = ask(NOW + 3 * DAY)

    assert request.due_at == NOW + 7 * DAY
    assert retrain.due(now=NOW + 6 * DAY) is None
    assert retrain.due(now=NOW + 7 * DAY) == request


def test_a_request_waits_until_its_run_succeeded() -> None:
    """A failed run closes nothing; a success does."""
    ask(NOW)
    waiting = retrain.due(now=NOW + DAY)
    retrain.taken(now=NOW + DAY)

    assert waiting is not None
    assert retrain.due(now=NOW + 2 * DAY) is None
