"""Fresh events have one writer: it records them as outcomes, then makes the feature store show them.

An event is durable before the store is touched. If the store then fails, sending the same events again puts
them right: recording is idempotent by `event_id`, merging into a history is idempotent by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_repo.push import HISTORY_EVENT_TYPE, push_fresh
from feature_repo.store import WRITER_LOCK, live_folder, open_store, read_state
from sidrec import home
from sidrec.errors import ServingError
from sidrec.outcome import Outcome, OutcomeLog, parse_outcomes
from sidrec.process import exclusive

_LOCK_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where every event sent is: sent = new + duplicates; `users` is how many histories changed."""

    sent: int
    new: int
    duplicates: int
    users: int


def push_events(events: Sequence[Mapping[str, Any] | Outcome]) -> Pushed:
    """Record events and return once the next recommendation can see them.

    Raises:
        UsageError: a row is malformed or an `event_id` is used for two events; nothing was written.
        BusyError: another writer held the store too long; nothing was written.
        ServingError: the events are recorded, but the feature store does not show them yet.
    """
    outcomes = parse_outcomes(events)
    if not outcomes:
        return Pushed(0, 0, 0, 0)
    feast_dir = home.feast_dir()
    with exclusive(feast_dir / WRITER_LOCK, "the feature store's writer", wait_s=_LOCK_WAIT_S):
        appended = OutcomeLog(home.outcomes_dir()).append(outcomes)
        history_events = [
            (outcome.user_id, outcome.item_id, outcome.event_time)
            for outcome in outcomes
            if outcome.event_type == HISTORY_EVENT_TYPE
        ]
        try:
            generation = live_folder(feast_dir)
            users = push_fresh(open_store(generation), history_events, history_cap=read_state(generation).history_cap)
        except Exception as error:  # feast raises every kind; the events themselves are safe
            raise ServingError(
                f"{len(outcomes)} events are recorded, but the feature store does not show them: "
                f"{type(error).__name__}: {error}",
                evidence=home.outcomes_dir(),
                next_step="send the same events again once the store answers: each counts once",
            ) from error
    return Pushed(len(outcomes), appended.new, appended.duplicates, users)
