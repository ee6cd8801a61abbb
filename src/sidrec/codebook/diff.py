"""What a change of semantic IDs breaks: who moved, how far, seen by how many, what share of histories is rewritten.

Axes: `item` rows, `level` codes of a semantic ID.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidrec.data.catalog import PAD, Catalog

Codes = NDArray[np.int32]


def diff(
    before: Catalog,
    after: Catalog,
    *,
    num_levels: int,
    codebook_size: int,
    traffic: NDArray[np.floating[Any]] | None = None,
    history_counts: NDArray[np.floating[Any]] | None = None,
    top: int = 20,
) -> dict[str, Any]:
    """Return how the catalogue `after` differs from `before`, as JSON data.

    Semantic IDs of different lengths are compared code by code; a code that one of them lacks differs.

    Args:
        num_levels: codes of the quantizer itself; a further one only tells colliding items apart.
        traffic: [item of `before`], any weights; its recent popularity when left out.
        history_counts: [item of `before`], how often each stands in a history; its popularity when left out.
        top: how many movers are named.
    """
    rows = np.array([after.index_of.get(item, -1) for item in before.item_ids], dtype=np.int64)
    common = np.flatnonzero(rows >= 0)
    width = max(before.num_codes, after.num_codes)
    old, new = _wide(before.codes[common], width), _wide(after.codes[rows[common]], width)
    differs = old != new
    moved = differs.any(axis=1)
    depth = np.cumprod(~differs, axis=1).sum(axis=1)
    weights = _shares(before.recent_popularity if traffic is None else traffic)[common]
    counts = np.asarray(before.popularity if history_counts is None else history_counts, dtype=np.float64)[common]
    tokens = counts[:, None] * ((old != PAD) | (new != PAD))
    levels = min(num_levels, width)
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
        "collisions": _collisions(old[:, :levels], new[:, :levels]),
        "dead_codes": {
            "before": _dead(before.codes, num_levels, codebook_size),
            "after": _dead(after.codes, num_levels, codebook_size),
        },
        "history_tokens_rewritten": float((tokens * differs).sum() / tokens.sum()) if tokens.sum() > 0 else 0.0,
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
    """Return how many items share the quantizer's codes with another one, and how many began or ceased to."""
    was, now = _sharing(old), _sharing(new)
    return {
        "before": int(was.sum()),
        "after": int(now.sum()),
        "created": int((now & ~was).sum()),
        "healed": int((was & ~now).sum()),
    }


def _sharing(codes: Codes) -> NDArray[np.bool_]:
    if not len(codes):
        return np.zeros(0, dtype=np.bool_)
    _, group, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    shared: NDArray[np.bool_] = count[group.reshape(-1)] > 1
    return shared


def _dead(codes: Codes, num_levels: int, codebook_size: int) -> list[int]:
    levels = range(min(num_levels, codes.shape[1]))
    return [codebook_size - len(np.unique(codes[codes[:, level] != PAD, level])) for level in levels]


def _shares(values: NDArray[Any]) -> NDArray[np.float64]:
    weights = np.asarray(values, dtype=np.float64)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / max(1, len(weights)))


def _wide(codes: Codes, width: int) -> Codes:
    return np.pad(codes, ((0, 0), (0, width - codes.shape[1])), constant_values=PAD)
