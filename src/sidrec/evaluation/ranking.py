"""The best k items of every row of scores, or the rank of one; ties go to the more popular item, then the lower index.

Axes: `row` users, `item` catalogue, `rank` places of a list.
"""

import numpy as np
from numpy.typing import NDArray


class TieOrder:
    """Ranks items by score under the protocol's tie rule."""

    def __init__(self, popularity: NDArray[np.integer]) -> None:
        self._order = np.lexsort((np.arange(len(popularity)), -popularity))
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(popularity))

    def top(self, scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
        """Return `[row, rank]` item indices, best first; -1 fills a row with fewer than k scores above -inf."""
        k = min(k, scores.shape[1])
        # Columns in tie order, so among equal scores the leftmost wins.
        table = scores[:, self._order]
        kth = -np.partition(-table, k - 1, axis=1)[:, k - 1 : k]
        above = table > kth
        level = table == kth
        room = k - above.sum(axis=1, keepdims=True)
        chosen = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(table), k)
        values = np.take_along_axis(table, columns, axis=1)
        best = np.argsort(-values, axis=1, kind="stable")
        lists = self._order[np.take_along_axis(columns, best, axis=1)]
        return np.where(np.take_along_axis(values, best, axis=1) > -np.inf, lists, -1)

    def ranks(self, scores: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return `[row]` the rank, from 1, of one item a row by counting what is above it: no row is sorted."""
        own = scores[np.arange(len(scores)), targets]
        # Row by row: a whole table of comparisons would leave the cache before it is counted.
        above = [np.count_nonzero(row > score) for row, score in zip(scores, own, strict=True)]
        level = [np.count_nonzero(row >= score) for row, score in zip(scores, own, strict=True)]
        ranks = 1 + np.array(above, dtype=np.int64)
        for row in np.flatnonzero(np.array(level) - above > 1):
            tied = np.flatnonzero(scores[row] == own[row])
            ranks[row] += np.count_nonzero(self._place[tied] < self._place[targets[row]])
        return ranks
