"""What a user's capped history is: the newest whole baskets that fit, a basket being one UTC day.

The training set, the online store and a push of fresh events share this one rule.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from sidrec.clock import DAY_S

Event = tuple[str, int]


def running_histories(baskets: Iterable[tuple[int, Sequence[str]]], cap: int) -> Iterator[list[Event]]:
    """Yield the capped history after each basket of one user.

    Args:
        baskets: (time, item ids) in time order.
        cap: most events kept. The newest baskets whose sizes sum to no more are kept whole; of a newest basket
            that is larger by itself, its last `cap` items.
    """
    kept: deque[list[Event]] = deque()
    size = 0
    for time, item_ids in baskets:
        basket = [(item_id, time) for item_id in item_ids[-cap:]]
        kept.append(basket)
        size += len(basket)
        while size > cap:
            size -= len(kept.popleft())
        yield [event for basket in kept for event in basket]


def merge_events(history: Iterable[Event], fresh: Iterable[Event], cap: int) -> list[Event]:
    """Return a history with fresh events in it, oldest first and capped.

    An item counts once a day, at its earliest time, so an event that is there already changes nothing and a late
    one takes its place in time.
    """
    days: dict[int, dict[str, int]] = {}
    for item_id, time in [*history, *fresh]:
        day = days.setdefault(time // DAY_S, {})
        day[item_id] = min(time, day.get(item_id, time))
    merged: list[Event] = []
    for number in sorted(days, reverse=True):
        # Ties keep the order in which the items came in: a stored basket's own order.
        basket = sorted(days[number].items(), key=lambda event: event[1])[-cap:]
        if len(merged) + len(basket) > cap:
            break
        merged = basket + merged
    return merged
