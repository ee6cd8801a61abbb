"""What a change of semantic IDs breaks: who moved, how far, seen by how many, what share of histories is rewritten.

Axes: `item` rows, `level` codes of a semantic ID.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidrec.data.catalog import PAD, Catalog, widened

Codes = NDArray[np.int32]


def diff(
    before: Catalog,
    after: Catalog,
    *,
    num_levels: int,
    codebook_size: int,
    num_levels_before: int | None = None,
    codebook_size_before: int | None = None,
    traffic: NDArray[np.floating[Any]] | None = None,
    history_counts: NDArray[np.floating[Any]] | None = None,
    top: int = 20,
) -> dict[str, Any]:
    """Return how the catalogue `after` differs from `before`, as JSON data.

    Semantic IDs of different lengths are compared code by code; a code that one of them lacks differs.

    Args:
        num_levels: codes of the quantizer of `after`; a further one only tells colliding items apart.
        num_levels_before: of `before`, like `codebook_size_before`; the same when left out.
        traffic: [item of `before`], any weights; its recent popularity when left out.
        history_counts: [item of `before`], how often each stands in a history; its popularity when left out.
        top: how many movers are named.
    """
    rows = np.array([after.index_of.get(item, -1) for item in before.item_ids], dtype=np.int64)
    common = np.flatnonzero(rows >= 0)
    width = max(before.num_codes, after.num_codes)
    old, new = widened(before.codes[common], width), widened(after.codes[rows[common]], width)
    differs = old != new
    moved = differs.any(axis=1)
    depth = np.cumprod(~differs, axis=1).sum(axis=1)
    # Of the items that both have: what is absent cannot move, and is counted by itself.
    weights = _shares(np.asarray(before.recent_popularity if traffic is None else traffic)[common])
    counts = np.asarray(before.popularity if history_counts is None else history_counts, dtype=np.float64)
    tokens = counts[common, None] * ((old != PAD) | (new != PAD))
    gone = np.setdiff1d(np.arange(len(before)), common)
    lost = float((counts[gone, None] * (before.codes[gone] != PAD)).sum())
    in_histories = max(float(tokens.sum()) + lost, 1e-12)
    old_levels = num_levels if num_levels_before is None else num_levels_before
    old_size = codebook_size if codebook_size_before is None else codebook_size_before
    return {
        "items": {
            "common": len(common),
            "added": len(after) - len(common),
            "absent": len(before) - len(common),
            "removed": int((~before.removed[common] & after.removed[rows[common]]).sum()),
            "restored": int((before.removed[common] & ~after.removed[rows[common]]).sum()),
        },
        "moved": {
            "items": int(moved.sum()),
            "share": float(moved.mean()) if len(common) else 0.0,
            "traffic": float(weights[moved].sum()),
        },
        "shared_prefix": [
            {"depth": at, "items": int((depth == at).sum()), "traffic": float(weights[depth == at].sum())}
            for at in range(width + 1)
        ],
        "changed_by_level": [float(share) for share in differs.mean(axis=0)] if len(common) else [0.0] * width,
        "collisions": _collisions(old[:, :old_levels], new[:, :num_levels]),
        "dead_codes": {
            "before": _dead(before.codes, old_levels, old_size),
            "after": _dead(after.codes, num_levels, codebook_size),
        },
        "history_tokens_rewritten": float((tokens * differs).sum()) / in_histories,
        "history_tokens_lost": lost / in_histories,
        "top_movers": _movers(before, old, new, common, moved, depth, weights, top),
    }


def _movers(
    before: Catalog,
    old: Codes,
    new: Codes,
    common: NDArray[np.int64],
    moved: NDArray[np.bool_],
    depth: NDArray[np.int64],
    weights: NDArray[np.float64],
    top: int,
) -> list[dict[str, Any]]:
    """Return the moved items that most traffic goes to."""
    rows = np.flatnonzero(moved)
    rows = rows[np.argsort(-weights[rows], kind="stable")][:top]
    return [
        {
            "item_id": before.item_ids[common[row]],
            "title": before.titles[common[row]],
            "traffic": float(weights[row]),
            "before": [int(code) for code in old[row] if code != PAD],
            "after": [int(code) for code in new[row] if code != PAD],
            "shared_prefix": int(depth[row]),
        }
        for row in rows.tolist()
    ]


def _collisions(old: Codes, new: Codes) -> dict[str, int]:
    """Return how many items share the quantizer's codes with another one, and how many items and pairs began or ceased.

    An item that changes its partner is in a new pair although it neither began nor ceased to share.
    """
    was, now = _groups(old), _groups(new)
    shared_before, shared_after = was[1] > 1, now[1] > 1
    kept = _pairs(_groups(np.stack([was[0], now[0]], axis=1)))
    return {
        "before": int(shared_before.sum()),
        "after": int(shared_after.sum()),
        "created": int((shared_after & ~shared_before).sum()),
        "healed": int((shared_before & ~shared_after).sum()),
        "pairs_created": _pairs(now) - kept,
        "pairs_healed": _pairs(was) - kept,
    }


def _groups(codes: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each item's group of equal codes [item], and how many are in it [item]."""
    if not len(codes):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, group, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    return group, count[group]


def _pairs(groups: tuple[NDArray[np.int64], NDArray[np.int64]]) -> int:
    return int((groups[1] - 1).sum()) // 2


def _dead(codes: Codes, num_levels: int, codebook_size: int) -> list[int]:
    levels = range(min(num_levels, codes.shape[1]))
    return [codebook_size - len(np.unique(codes[codes[:, level] != PAD, level])) for level in levels]


def _shares(values: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.asarray(values, dtype=np.float64)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / max(1, len(weights)))
