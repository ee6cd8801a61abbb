"""How well codes are used: by level, and as whole semantic IDs.

Axes: `item` rows, `level` coarsest first; `code` entries of one codebook.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def level_health(codes: NDArray[np.integer[Any]], codebook_size: int) -> dict[str, float | int]:
    """Return the usage figures of one level's codes [item], each item counting once.

    Perplexity is exp of the entropy of the usage shares; normalised entropy is 1 when all codes are used alike;
    Gini is 0 then and nears 1 when one code takes all items. TorchEasyRec's report by layer has the same figures as
    coverage (utilisation), dead_codes and perplexity.
    """
    counts = np.bincount(codes, minlength=codebook_size)
    usage = _usage(counts)
    return {
        **usage,
        "max_bucket": int(counts.max(initial=0)),
        "mean_bucket": float(counts.sum() / usage["used_codes"]) if usage["used_codes"] else 0.0,
    }


def sid_health(codes: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Return how well whole semantic IDs [item, level] tell items apart.

    The collision rate is 1 - distinct semantic IDs / items; an item is uniquely identified when no other item
    shares its codes. Gini and entropy are those of the items over the distinct semantic IDs; the entropy ratio is 1
    when every item has its own. TorchEasyRec's report has the same figures as total, unique_sid, no_collision_rate,
    uniquely_identified_item_rate, max_collision, gini, entropy, max_entropy and entropy_ratio.
    """
    num_items = len(codes)
    if num_items == 0:
        return {
            "items": 0, "distinct": 0, "collision_rate": 0.0, "no_collision_rate": 1.0, "uniquely_identified": 1.0,
            "max_bucket": 0, "gini": 0.0, "entropy": 0.0, "max_entropy": 0.0, "entropy_ratio": 1.0,
            "distinct_prefixes": [],
        }  # fmt: skip
    _, counts = np.unique(codes, axis=0, return_counts=True)
    shares = counts / num_items
    entropy, largest = float(-(shares * np.log(shares)).sum()) + 0.0, float(np.log(num_items))
    return {
        "items": num_items,
        "distinct": len(counts),
        "collision_rate": 1 - len(counts) / num_items,
        "no_collision_rate": len(counts) / num_items,
        "uniquely_identified": float((counts == 1).sum() / num_items),
        "max_bucket": int(counts.max()),
        "gini": gini(counts),
        "entropy": entropy,
        "max_entropy": largest,
        "entropy_ratio": entropy / largest if num_items > 1 else 1.0,
        "distinct_prefixes": [len(np.unique(codes[:, : depth + 1], axis=0)) for depth in range(codes.shape[1])],
    }


def codebook_health(codes: NDArray[np.integer[Any]], codebook_size: int) -> dict[str, Any]:
    """Return `sid_health` of the codes [item, level] with `level_health` of each level under `levels`."""
    return {
        **sid_health(codes),
        "levels": [{"level": level, **level_health(codes[:, level], codebook_size)} for level in range(codes.shape[1])],
    }


def weighted_health(
    codes: NDArray[np.integer[Any]], codebook_size: int, weights: NDArray[np.floating[Any]]
) -> dict[str, float | int]:
    """Return the usage figures of one level's codes [item] when an item counts as much as its weight [item].

    A code without weight is dead to the traffic, even where items have it.
    """
    return _usage(np.bincount(codes, weights=np.asarray(weights, dtype=np.float64), minlength=codebook_size))


def _usage(mass: NDArray[Any]) -> dict[str, float | int]:
    """Return the figures of a level whose codes have this much mass [code]; entropy in nats."""
    size, total, used = len(mass), float(mass.sum()), int((mass > 0).sum())
    shares = mass[mass > 0] / total if total > 0 else np.zeros(0)
    entropy = float(-(shares * np.log(shares)).sum()) + 0.0  # minus zero reads badly
    return {
        "codebook_size": size,
        "used_codes": used,
        "dead_codes": size - used,
        "utilisation": used / size,
        "perplexity": float(np.exp(entropy)),
        "entropy": entropy,
        "normalised_entropy": entropy / float(np.log(size)) if size > 1 else 1.0,
        "gini": gini(mass),
        "largest_share": float(mass.max(initial=0) / total) if total > 0 else 0.0,
    }


def prefix_stability(
    before: NDArray[np.integer[Any]], after: NDArray[np.integer[Any]], traffic: NDArray[np.floating[Any]]
) -> dict[str, list[float]]:
    """Return, for every depth, the share of items and of their traffic that kept their first codes.

    Args:
        before: [item, level]; where one table has more levels than the other, a code that the narrower one lacks is
            -1, as for an item that needs no extra code.
        traffic: [item], any weights; where they are all 0, every item counts alike.
    """
    width = max(before.shape[1], after.shape[1])
    old, new = (np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=-1) for one in (before, after))
    kept = np.cumprod(old == new, axis=1)
    total = float(traffic.sum())
    weights = traffic / total if total > 0 else np.full(len(kept), 1 / max(1, len(kept)))
    return {
        "items": kept.mean(axis=0).tolist() if len(kept) else [1.0] * width,
        "traffic": (weights @ kept).tolist() if len(kept) else [1.0] * width,
    }


def mutual_information(codes: NDArray[np.integer[Any]], codebook_size: int) -> NDArray[np.float64]:
    """Return the normalised mutual information [slot, slot] of every two slots' codes [item, slot].

    I(A; B) over the mean of both entropies: 1 when one slot says what the other says, near 0 when they are
    independent; small samples over many codes lift it.
    """
    count, slots = codes.shape
    result = np.eye(slots)
    entropies = [_entropy(np.bincount(codes[:, slot])) for slot in range(slots)]
    for one in range(slots):
        for other in range(one + 1, slots):
            joint = np.unique(codes[:, one].astype(np.int64) * codebook_size + codes[:, other], return_counts=True)[1]
            shared = entropies[one] + entropies[other] - _entropy(joint)
            mean = (entropies[one] + entropies[other]) / 2
            result[one, other] = result[other, one] = shared / mean if count and mean > 0 else 0.0
    return result


def chance_information(codes: NDArray[np.integer[Any]], codebook_size: int) -> float:
    """Return the mean `mutual_information` of the same slots [item, slot] once each is shuffled on its own.

    What real slots have above it, they share; the shuffle has a fixed seed.
    """
    slots = codes.shape[1]
    if slots < 2:
        return 0.0
    shuffled = np.random.default_rng(0).permuted(codes, axis=0)
    return float(mutual_information(shuffled, codebook_size)[np.triu_indices(slots, 1)].mean())


def load_balance(load: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return the shares of the experts' load [slot], the largest of them and their Gini coefficient."""
    shares = np.asarray(load, dtype=np.float64) / max(float(np.sum(load)), 1e-12)
    return {"shares": shares.tolist(), "largest_share": float(shares.max(initial=0)), "gini": gini(shares)}


def _entropy(counts: NDArray[np.integer[Any]]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())


def gini(counts: NDArray[Any]) -> float:
    """Return the Gini coefficient of the counts: the mean absolute difference over twice the mean."""
    total = counts.sum()
    if total == 0:
        return 0.0
    ordered = np.sort(counts)
    ranks = np.arange(1, len(counts) + 1)
    return float(((2 * ranks - len(counts) - 1) * ordered).sum() / (len(counts) * total))
