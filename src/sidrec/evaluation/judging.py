"""A model's lists turned into per-row metrics, the same way for a bundle, a champion and a floor.

Axes: `row` the rows of one kind of target, `rank` places of a list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidrec.evaluation.metrics import LIST_LENGTH, Floats, hit_matrix, row_metrics
from sidrec.evaluation.protocol import Ints, NextBasket, TargetKind, Targets
from sidrec.evaluation.ranking import TieOrder

KINDS: tuple[TargetKind, ...] = ("all", "novel")
"""What `next_basket_v1` judges; a protocol without repeats has targets of the first kind alone."""

Lists = Mapping[TargetKind, Ints]
"""`[row, rank]` item indices for each kind's rows; -1 for a place that is empty or names no catalogue item."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What one model scored on every row."""

    lists: Lists
    hits: Mapping[TargetKind, NDArray[np.bool_]]
    rows: Mapping[TargetKind, Mapping[str, Floats]]

    def means(self, kind: TargetKind) -> dict[str, float]:
        """Return every metric's mean over rows: a row counts once, however large its basket."""
        return {name: float(values.mean()) for name, values in self.rows[kind].items()}


def judge(lists: Lists, targets: Mapping[TargetKind, Targets], num_items: int) -> Judged:
    """Return the per-row metrics of a model's lists, of every kind that `targets` holds.

    A row whose list names an item twice would be counted twice, so that is refused.
    """
    hits = {}
    for kind in targets:
        ordered = np.sort(lists[kind], axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError(f"a list of the {kind} rows names an item twice")
        hits[kind] = hit_matrix(lists[kind], targets[kind].pair_row, targets[kind].pair_item, num_items)
    return Judged(
        lists=lists,
        hits=hits,
        rows={kind: row_metrics(hits[kind], targets[kind].sizes) for kind in targets},
    )


def rank_all(
    score: Callable[[Ints], NDArray[np.float64]],
    data: NextBasket,
    targets: Mapping[TargetKind, Targets],
    *,
    batch_size: int = 256,
) -> Lists:
    """Return the lists of a model that scores the whole catalogue, of every kind that `targets` holds.

    Novel lists leave out what the user has bought.
    """
    order = TieOrder(data.popularity)
    seen = data.history()
    lists: dict[TargetKind, list[Ints]] = {kind: [] for kind in targets}
    novel = np.isin(np.arange(data.num_rows), targets["novel"].rows if "novel" in targets else [])
    for start in range(0, data.num_rows, batch_size):
        rows = np.arange(start, min(start + batch_size, data.num_rows))
        scores = score(rows)
        if "all" in lists:
            lists["all"].append(order.top(scores, LIST_LENGTH))
        unseen = scores[novel[rows]]
        unseen[seen[rows[novel[rows]]].nonzero()] = -np.inf
        if len(unseen):
            lists["novel"].append(order.top(unseen, LIST_LENGTH))
    width = min(LIST_LENGTH, data.num_items)
    return {kind: np.concatenate([np.empty((0, width), dtype=np.int64), *parts]) for kind, parts in lists.items()}
