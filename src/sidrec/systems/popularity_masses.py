"""How much of every item was sold before any given day: what priors of codes start from.

Popularity moves fast in retail, so a day's masses are those of a recent window, on top of a little of the whole past.

Axes: `day` from the first day of the histories on, `item` catalogue rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sidrec.systems.history import Histories, History

# Weight of the whole past beside the recent window, in pseudo-baskets, and of never-bought items.
PAST_WEIGHT = 30.0
UNSEEN = 0.02


def recent_masses(
    histories: Sequence[History], num_items: int, *, last_day: int, window_days: int, smoothing: float = 0.0
) -> tuple[NDArray[np.float32], int]:
    """Return the masses [day, item] up to `last_day`, each from the days strictly before it, and the first day.

    Args:
        smoothing: purchases in the window that every item is given, so that a new one has a mass.
    """
    columns = Histories.of(histories)
    first_day = min(int(day.min()) for _, day in columns.events() if len(day))
    days = last_day - first_day + 1
    sold = np.zeros((days + 1, num_items), dtype=np.float32)
    for items, day in columns.events():
        np.add.at(sold, (np.minimum(day - first_day, days), items), 1.0)
    before = np.concatenate([np.zeros((1, num_items), np.float32), sold[:days].cumsum(axis=0)])[:days]
    window = before - before[np.maximum(np.arange(days) - window_days, 0)]
    past = before + UNSEEN
    return window + PAST_WEIGHT * past / past.sum(axis=1, keepdims=True) + smoothing, first_day


def total_masses(histories: Sequence[History], num_items: int) -> NDArray[np.float64]:
    """Return the masses [item] of the whole fit period: for data whose days carry no news."""
    counts = np.full(num_items, UNSEEN)
    for items, _ in Histories.of(histories).events():
        np.add.at(counts, items, 1.0)
    return counts


def recent_counts(histories: Sequence[History], num_items: int, day: int, window_days: int = 28) -> NDArray[np.int64]:
    """Return in how many baskets each item was in the last days before `day`, as the catalogue counts at its end."""
    counts = np.zeros(num_items, dtype=np.int64)
    for items, days in Histories.of(histories).events():
        np.add.at(counts, items[(days >= day - window_days) & (days < day)], 1)
    return counts
