"""Rows of a protocol as queries of a model, in item indices.

Axes: `row` judged targets.
"""

import numpy as np
from numpy.typing import NDArray

from sidrec.clock import DAY_S
from sidrec.evaluation.protocol import NextBasket
from sidrec.systems.base import Query


def queries_of(data: NextBasket, *, k: int) -> list[Query]:
    """Return one query a row over its whole history; items outside the catalogue are left out."""
    queries = []
    for first, target in zip(data.row_first.tolist(), data.row_basket.tolist(), strict=True):
        low, high = int(data.offsets[first]), int(data.offsets[target])
        items = data.events[low:high]
        sizes = np.diff(data.offsets[first : target + 1])
        times = np.repeat(data.basket_time[first:target], sizes)
        known = items >= 0
        basket = np.unique(times[known] // DAY_S, return_inverse=True)[1].astype(np.int64)
        now = int(data.basket_day[target]) * DAY_S
        queries.append(Query(items[known], times[known], basket, now, k, exclude_seen=False))
    return queries


def single_targets(data: NextBasket) -> NDArray[np.int64]:
    """Return one target item a row, the first known one of its basket; -1 where none is in the catalogue."""
    targets = np.full(data.num_rows, -1, dtype=np.int64)
    for row, basket in enumerate(data.row_basket.tolist()):
        items = data.events[data.offsets[basket] : data.offsets[basket + 1]]
        known = items[items >= 0]
        if len(known):
            targets[row] = known[0]
    return targets
