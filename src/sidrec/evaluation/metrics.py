"""Ranking metrics of a list against a SET of targets: recall, capped recall, hit rate and NDCG with the set's ideal.

Axes: `row` evaluated users, `rank` places of a list, best first.
"""

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (5, 10, 20)
LIST_LENGTH = max(CUTOFFS)

Floats = NDArray[np.float64]


def hit_matrix(
    lists: NDArray[np.integer], target_row: NDArray[np.integer], target_item: NDArray[np.integer], num_items: int
) -> NDArray[np.bool_]:
    """Return `[row, rank]`: whether the item at that rank is one of the row's targets.

    Args:
        lists: `[row, rank]` item indices, -1 where a list is shorter.
        target_row: `[target]` the row of each target.
        target_item: `[target]` its item index, -1 for an item outside the catalogue (never hit).
    """
    known = target_item >= 0
    targets = np.unique(target_row[known].astype(np.int64) * num_items + target_item[known])
    keys = np.arange(len(lists), dtype=np.int64)[:, None] * num_items + lists
    return np.isin(keys, targets) & (lists >= 0)


def recall_at_k(hits: NDArray[np.bool_], sizes: NDArray[np.integer], k: int) -> Floats:
    """Return, for each row, the share of its targets among the first k; at most min(k, size) / size."""
    return np.asarray(hits[:, :k].sum(axis=1) / sizes, dtype=np.float64)


def max_recall_at_k(sizes: NDArray[np.integer], k: int) -> Floats:
    """Return, for each row, the recall of a perfect list of k items."""
    return np.asarray(np.minimum(sizes, k) / sizes, dtype=np.float64)


def capped_recall_at_k(hits: NDArray[np.bool_], sizes: NDArray[np.integer], k: int) -> Floats:
    """Return, for each row, the hits among the first k over the most that k places can hold."""
    return np.asarray(hits[:, :k].sum(axis=1) / np.minimum(sizes, k), dtype=np.float64)


def hit_rate_at_k(hits: NDArray[np.bool_], k: int) -> Floats:
    """Return, for each row, 1 if any of the first k is a target, else 0."""
    return np.asarray(hits[:, :k].any(axis=1), dtype=np.float64)


def ndcg_at_k(hits: NDArray[np.bool_], sizes: NDArray[np.integer], k: int) -> Floats:
    """Return, for each row, binary-gain DCG over that of min(k, size) hits in a row from rank 1."""
    ranks = min(k, hits.shape[1])
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(sizes, k)]
    return np.asarray(hits[:, :ranks] @ discounts[:ranks] / ideal, dtype=np.float64)


def row_metrics(hits: NDArray[np.bool_], sizes: NDArray[np.integer]) -> dict[str, Floats]:
    """Return every metric of the reports as per-row arrays, keyed `recall@5` … `hr@20`.

    Args:
        hits: `[row, rank]`, at least as many ranks as the largest cutoff unless lists are shorter.
        sizes: `[row]` number of targets, those outside the catalogue included; never 0.
    """
    metrics: dict[str, Floats] = {}
    for k in CUTOFFS:
        metrics[f"recall@{k}"] = recall_at_k(hits, sizes, k)
        metrics[f"ndcg@{k}"] = ndcg_at_k(hits, sizes, k)
        metrics[f"crecall@{k}"] = capped_recall_at_k(hits, sizes, k)
        metrics[f"hr@{k}"] = hit_rate_at_k(hits, k)
    return metrics
