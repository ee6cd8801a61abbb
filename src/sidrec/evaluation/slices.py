"""Metrics on parts: popular and rare target items, new ones, short and long histories.

An item slice keeps the lists and narrows the target sets; a history slice keeps the sets and narrows the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sidrec.evaluation.judging import Judged
from sidrec.evaluation.metrics import hit_matrix, ndcg_at_k, recall_at_k
from sidrec.evaluation.protocol import Ints, NextBasket, TargetKind, Targets

HEAD_SHARE = 0.2
SHORT_BASKETS = 2
LONG_BASKETS = 10

SLICES = {
    "head_items": "targets among the most popular fifth of the catalogue",
    "tail_items": "targets in the other four fifths",
    "new_items": "targets first bought in the last 28 days before the gate, or never before it",
    "short_history": f"users with at most {SHORT_BASKETS} earlier baskets",
    "middle_history": f"users with {SHORT_BASKETS + 1} to {LONG_BASKETS - 1} earlier baskets",
    "long_history": f"users with {LONG_BASKETS} or more earlier baskets",
}


@dataclass(frozen=True, slots=True)
class SliceValue:
    """One model on one slice."""

    rows: int
    targets: int
    ndcg_at_10: float
    recall_at_20: float


def head_items(data: NextBasket) -> Ints:
    """Return, for each item, 1 if it is among the most popular fifth of the catalogue."""
    order = np.lexsort((np.arange(data.num_items), -data.popularity))
    head = np.zeros(data.num_items, dtype=np.int64)
    head[order[: round(HEAD_SHARE * data.num_items)]] = 1
    return head


def narrowed(data: NextBasket, targets: Targets) -> dict[str, tuple[Ints, Ints]]:
    """Return, for each slice, the `[target]` positions that it keeps and the `[row]` number of kept targets."""
    item = targets.pair_item
    known = np.maximum(item, 0)
    inside = item >= 0
    head = inside & (head_items(data)[known] == 1)
    older = data.popularity - data.recent_popularity
    history = (data.row_basket - data.row_first)[targets.rows][targets.pair_row]
    masks = {
        "head_items": head,
        "tail_items": inside & ~head,
        "new_items": ~inside | (older[known] == 0),
        "short_history": history <= SHORT_BASKETS,
        "middle_history": (history > SHORT_BASKETS) & (history < LONG_BASKETS),
        "long_history": history >= LONG_BASKETS,
    }
    return {
        name: (np.flatnonzero(mask), np.bincount(targets.pair_row[mask], minlength=len(targets.rows)))
        for name, mask in masks.items()
    }


def slice_values(
    judged: Judged, data: NextBasket, targets: Mapping[TargetKind, Targets], kind: TargetKind
) -> dict[str, SliceValue]:
    """Return a model's NDCG@10 and Recall@20 on every slice; a slice without rows reads 0 with 0 rows."""
    values = {}
    for name, (kept, sizes) in narrowed(data, targets[kind]).items():
        rows = np.flatnonzero(sizes)
        if not len(rows):
            values[name] = SliceValue(rows=0, targets=0, ndcg_at_10=0.0, recall_at_20=0.0)
            continue
        pairs = targets[kind]
        hits = hit_matrix(judged.lists[kind], pairs.pair_row[kept], pairs.pair_item[kept], data.num_items)[rows]
        values[name] = SliceValue(
            rows=len(rows),
            targets=len(kept),
            ndcg_at_10=float(ndcg_at_k(hits, sizes[rows], 10).mean()),
            recall_at_20=float(recall_at_k(hits, sizes[rows], 20).mean()),
        )
    return values
