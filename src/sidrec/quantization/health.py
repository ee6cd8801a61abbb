"""How well codes are used: by level, and as whole semantic IDs.

Axes: `item` rows, `level` coarsest first; `code` entries of one codebook.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def level_health(codes: NDArray[np.integer[Any]], codebook_size: int) -> dict[str, float | int]:
    """Return the usage figures of one level's codes [item], each item counting once.

    Perplexity is exp of the entropy of the usage shares; normalised entropy is 1 when all codes are used alike;
    Gini is 0 then and nears 1 when one code takes all items.
    """
    counts = np.bincount(codes, minlength=codebook_size)
    used = int((counts > 0).sum())
    shares = counts[counts > 0] / max(1, counts.sum())
    entropy = float(-(shares * np.log(shares)).sum()) + 0.0  # minus zero reads badly
    return {
        "codebook_size": codebook_size,
        "used_codes": used,
        "dead_codes": codebook_size - used,
        "utilisation": used / codebook_size,
        "perplexity": float(np.exp(entropy)),
        "normalised_entropy": entropy / float(np.log(codebook_size)) if codebook_size > 1 else 1.0,
        "gini": gini(counts),
        "max_bucket": int(counts.max(initial=0)),
        "mean_bucket": float(counts.sum() / used) if used else 0.0,
    }


def sid_health(codes: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Return how well whole semantic IDs [item, level] tell items apart.

    The collision rate is 1 - distinct semantic IDs / items; an item is uniquely identified when no other item
    shares its codes.
    """
    num_items = len(codes)
    if num_items == 0:
        return {
            "items": 0, "distinct": 0, "collision_rate": 0.0, "uniquely_identified": 1.0, "max_bucket": 0,
            "distinct_prefixes": [],
        }  # fmt: skip
    _, counts = np.unique(codes, axis=0, return_counts=True)
    return {
        "items": num_items,
        "distinct": len(counts),
        "collision_rate": 1 - len(counts) / num_items,
        "uniquely_identified": float((counts == 1).sum() / num_items),
        "max_bucket": int(counts.max()),
        "distinct_prefixes": [len(np.unique(codes[:, : depth + 1], axis=0)) for depth in range(codes.shape[1])],
    }


def codebook_health(codes: NDArray[np.integer[Any]], codebook_size: int) -> dict[str, Any]:
    """Return `sid_health` of the codes [item, level] with `level_health` of each level under `levels`."""
    return {
        **sid_health(codes),
        "levels": [{"level": level, **level_health(codes[:, level], codebook_size)} for level in range(codes.shape[1])],
    }


def gini(counts: NDArray[np.integer[Any]]) -> float:
    """Return the Gini coefficient of the counts: the mean absolute difference over twice the mean."""
    total = counts.sum()
    if total == 0:
        return 0.0
    ordered = np.sort(counts)
    ranks = np.arange(1, len(counts) + 1)
    return float(((2 * ranks - len(counts) - 1) * ordered).sum() / (len(counts) * total))
