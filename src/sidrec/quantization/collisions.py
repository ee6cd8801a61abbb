"""Items that share all codes are told apart by a policy, and every one ends with a semantic ID of its own.

`sinkhorn_last` gives colliding items different last codes within their prefix; `nearest_free` the free semantic ID of
least error, one code changed; `extra_code` numbers them in one more code.

Axes: `item` rows, `level` coarsest first, `code` entries of the last level's codebook, `dim` width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from sidrec.data.catalog import disambiguate
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.nearest_free import nearest_free
from sidrec.quantization.quantizer import Quantizer

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Uniquely decodable semantic IDs, with one more column where some need an extra code (`PAD` for the others)."""

    codes: NDArray[np.int32]  # [item, level] or [item, level + 1]
    moved: int
    """Items whose codes of the quantizer's own levels changed."""
    extra: int
    """Items with an extra code."""
    left: int
    """Items for which the policy found no free semantic ID, so that they share codes up to the extra one."""


def resolve(
    quantizer: Quantizer,
    latent: Float[Tensor, "item *parts dim"],
    codes: NDArray[np.int32],
    rank: NDArray[np.int64],
    config: CodebookConfig,
    *,
    taken: NDArray[np.int32] | None = None,
) -> Resolution:
    """Return a semantic ID of its own for every item; items that share their codes with none keep them.

    Parallel slots have no last one, so `nearest_free` is their policy whatever the settings say; it also is where
    semantic IDs are taken, because no code may be added behind a published one.

    Args:
        codes: [item, level], by plain distance.
        rank: [item], usually popularity: who chooses first.
        taken: semantic IDs of other items, published or buried, which nobody here may get or begin with.

    Raises:
        CheckFailedError: every semantic ID is taken.
    """
    levels = quantizer.num_levels
    if taken is not None or quantizer.parallel or config.collision_policy == "nearest_free":
        chosen = nearest_free(quantizer, latent, codes, rank, taken=None if taken is None else taken[:, :levels])
        final, left = disambiguate(chosen, rank), len(chosen) - len(np.unique(chosen, axis=0))
    elif config.collision_policy == "extra_code":
        chosen, final, left = codes, disambiguate(codes, rank), 0
    else:
        seen = latent
        for level, book in enumerate(quantizer.codebooks[:-1]):
            seen = seen - book[torch.from_numpy(codes[:, level].astype(np.int64))]
        seated = resolve_collisions(
            codes,
            seen.numpy(),
            quantizer.codebooks[-1].numpy(),
            rank,
            epsilon=config.sinkhorn_epsilon,
            iterations=config.sinkhorn_iterations,
        )
        chosen, final, left = seated.codes, disambiguate(seated.codes, rank), seated.left
    moved = int((chosen != codes).any(axis=1).sum())
    extra = int((final[:, levels:] >= 0).sum())
    return Resolution(final.astype(np.int32), moved, extra, left)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Codes after resolution, how many items moved, and how many still share theirs (their prefix is full)."""

    codes: NDArray[np.int32]  # [item, level]
    moved: int
    left: int


def sinkhorn_plan(costs: Floats, *, epsilon: float, iterations: int) -> Floats:
    """Return a transport plan [item, code]: every item is given out once, a code takes at most one item.

    Costs are scaled to a maximum of 1 first. An idle row takes up the codes that remain free at no cost; without it
    a few items would have to be spread over all codes, and the plan would say nothing.
    """
    num_items, num_codes = costs.shape
    if num_items > num_codes:
        raise ValueError(f"{num_items} items do not fit on {num_codes} codes")
    largest = costs.max(initial=0.0)
    kernel = -(costs / largest if largest > 0 else costs) / epsilon
    log_mass = np.zeros(num_items)
    if num_items < num_codes:
        kernel = np.vstack([kernel, np.zeros(num_codes)])
        log_mass = np.append(log_mass, np.log(num_codes - num_items))
    row, column = np.zeros(len(kernel)), np.zeros(num_codes)
    for _ in range(iterations):
        column = -logsumexp(kernel + row[:, None], axis=0)
        row = log_mass - logsumexp(kernel + column[None, :], axis=1)
    plan: Floats = np.exp(kernel + row[:, None] + column[None, :])[:num_items]
    return plan


def resolve_collisions(
    codes: NDArray[np.int32],
    residuals: NDArray[np.float32],
    codewords: NDArray[np.float32],
    rank: NDArray[np.int64],
    *,
    epsilon: float,
    iterations: int,
) -> Resolved:
    """Return codes in which colliding items have moved to free last codes of their own prefix.

    Items that share their codes with none keep them. The others compete for what is free by a Sinkhorn plan; then,
    by falling rank (ties by index), each takes a code that the plan favours, or the cheapest one still free. Where a
    prefix has more items than codes, the lowest ranked keep their first code and still collide.

    Args:
        codes: [item, level].
        residuals: [item, dim], what the last level quantizes.
        codewords: [code, dim], the last level's.
        rank: [item], usually popularity.
    """
    resolved = codes.copy()
    by_rank = np.argsort(-rank, kind="stable")
    groups: dict[tuple[int, ...], list[int]] = {}
    for item in by_rank.tolist():
        groups.setdefault(tuple(codes[item, :-1].tolist()), []).append(item)
    left = 0
    for members in groups.values():
        last = codes[members, -1]
        counts = np.bincount(last, minlength=len(codewords))
        colliding = [item for item in members if counts[codes[item, -1]] > 1]
        free = np.flatnonzero(counts != 1)
        seated, surplus = colliding[: len(free)], colliding[len(free) :]
        left += len(surplus)
        if seated:
            between = residuals[seated, None, :].astype(np.float64) - codewords[None, free, :]
            costs = np.square(between).sum(axis=-1)
            resolved[seated, -1] = free[_seats(costs, epsilon=epsilon, iterations=iterations)]
    moved = int((resolved[:, -1] != codes[:, -1]).sum())
    return Resolved(resolved, moved, left)


def _seats(costs: Floats, *, epsilon: float, iterations: int) -> NDArray[np.int64]:
    """Return a different code for each item; the first items choose first.

    Equal items have equal rows in the plan, which then decides nothing between them; so an item takes the cheapest
    free code among those that the plan favours, and the plan's rounding does not matter.
    """
    plan = sinkhorn_plan(costs, epsilon=epsilon, iterations=iterations)
    favoured = plan >= 0.5 * plan.max(axis=1, keepdims=True)
    free = np.ones(costs.shape[1], dtype=bool)
    seats = np.zeros(len(costs), dtype=np.int64)
    for item, wished in enumerate(favoured):
        choice = wished & free if (wished & free).any() else free
        seats[item] = np.where(choice, costs[item], np.inf).argmin()
        free[seats[item]] = False
    return seats
