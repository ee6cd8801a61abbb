"""Fresh events into the online store: read a user's history, merge, write the whole row back.

Callers hold the writer's lock, because Feast's SQLite store lets an older row overwrite a newer one.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidrec.data.history import Event, merge_events

if TYPE_CHECKING:
    from feast import FeatureStore

# Other kinds of events are outcomes: labels and evidence, but not what a history is made of.
HISTORY_EVENT_TYPE = "purchase"

_USERS_A_PUSH = 1000


def push_fresh(store: "FeatureStore", events: Iterable[tuple[str, str, int]], *, history_cap: int) -> int:
    """Merge (user, item, unix seconds) events into the online histories and return how many users changed."""
    fresh: defaultdict[str, list[Event]] = defaultdict(list)
    for user_id, item_id, time in events:
        fresh[user_id].append((item_id, time))
    # Users in the order of their newest event: who reads meanwhile never sees time go backwards.
    users = sorted(fresh, key=lambda user_id: max(time for _, time in fresh[user_id]))
    changed = 0
    for start in range(0, len(users), _USERS_A_PUSH):
        part = users[start : start + _USERS_A_PUSH]
        changed += _push_part(store, {user_id: fresh[user_id] for user_id in part}, history_cap)
    return changed


def _push_part(store: "FeatureStore", fresh: dict[str, list[Event]], history_cap: int) -> int:
    import pandas as pd
    from feast.data_source import PushMode

    stored = store.get_online_features(
        features=["user_history:item_ids", "user_history:times"],
        entity_rows=[{"user_id": user_id} for user_id in fresh],
    ).to_dict(include_event_timestamps=True)
    rows = []
    columns = (stored["user_id"], stored["item_ids"], stored["times"], stored["times__ts"])
    for user_id, item_ids, times, stamp in zip(*columns, strict=True):
        before: list[Event] = list(zip(item_ids or (), times or (), strict=True))
        after = merge_events(before, fresh[user_id], history_cap)
        if after == before:
            continue
        # Redis refuses a row that is not newer than the one it has, so a late event's row is stamped after it.
        newest = max(after[-1][1], stamp + 1 if before else 0)
        rows.append(
            {
                "user_id": user_id,
                "item_ids": [item_id for item_id, _ in after],
                "times": [time for _, time in after],
                "event_timestamp": pd.Timestamp(newest, unit="s", tz="UTC"),
            }
        )
    if rows:
        store.push("user_events", pd.DataFrame(rows), to=PushMode.ONLINE)
    return len(rows)
