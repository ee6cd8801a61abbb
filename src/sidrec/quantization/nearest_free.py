"""Colliding items move to the free semantic ID of least error, as few codes changed as possible.

Axes: `item` rows, `level` (or slot), `code` entries of one codebook, `choice` one code changed: level times code.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sidrec.errors import CheckFailedError
from sidrec.quantization.quantizer import Quantizer

# Items whose every single change is scored at a time.
_BLOCK = 2048
# Changes of several codes that are scored at once; beyond, the first free semantic ID in order is taken.
_MOST = 1 << 22


def nearest_free(
    quantizer: Quantizer,
    latent: Float[Tensor, "item *parts dim"],
    codes: NDArray[np.int32],
    rank: NDArray[np.int64],
    *,
    taken: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Return different codes for every item [item, level], none of them taken.

    Of items with equal codes, the one nearest to its codewords keeps them. The others choose by falling rank: the free
    semantic ID of least error with one code changed (equal errors: the last level first), else with two, and so on.
    Where there are more items than semantic IDs and none is taken, the lowest ranked keep the codes they share.

    Source: REG4Rec's disambiguation (arXiv 2508.15308) is not public; this form is our choice.

    Args:
        taken: [sid, level].

    Raises:
        CheckFailedError: every semantic ID is taken.
    """
    occupied = {tuple(row) for row in (() if taken is None else taken.tolist())}
    resolved = codes.copy()
    movers = _movers(quantizer, latent, codes, rank, occupied)
    kept = np.setdiff1d(np.arange(len(codes)), movers)
    occupied.update(tuple(row) for row in codes[kept].tolist())
    total = quantizer.codebook_size**quantizer.num_levels
    for start in range(0, len(movers), _BLOCK):
        block = movers[start : start + _BLOCK]
        rows = torch.from_numpy(codes[block].astype(np.int64))
        ranked = _single_changes(quantizer, latent[block], rows)
        for position, item in enumerate(block.tolist()):
            if len(occupied) >= total:
                if taken is not None:
                    raise CheckFailedError(
                        f"all {total:,} semantic IDs of {quantizer.num_levels} codes among {quantizer.codebook_size} "
                        f"are taken; {len(movers) - start - position:,} items have none",
                        next_step="fit a larger codebook (codebook.codebook_size), and train from scratch",
                    )
                return resolved
            own = tuple(codes[item].tolist())
            chosen = _first_free(_singles(own, ranked[position], quantizer.codebook_size), occupied)
            if chosen is None:
                chosen = _farther(quantizer, latent[item : item + 1], own, occupied)
            occupied.add(chosen)
            resolved[item] = chosen
    return resolved


def _movers(
    quantizer: Quantizer,
    latent: Float[Tensor, "item *parts dim"],
    codes: NDArray[np.int32],
    rank: NDArray[np.int64],
    occupied: set[tuple[int, ...]],
) -> NDArray[np.int64]:
    """Return the items that cannot keep their codes, by falling rank (then by index)."""
    errors = quantizer.errors(latent, torch.from_numpy(codes.astype(np.int64))).numpy()
    by_claim = np.lexsort((np.arange(len(codes)), -rank, errors))
    claimed = set(occupied)
    movers = []
    for item in by_claim.tolist():
        own = tuple(codes[item].tolist())
        if own in claimed:
            movers.append(item)
        else:
            claimed.add(own)
    chosen = np.array(movers, dtype=np.int64)
    return chosen[np.lexsort((chosen, -rank[chosen]))]


def _single_changes(quantizer: Quantizer, latent: Float[Tensor, "item *parts dim"], codes: Tensor) -> NDArray[np.int64]:
    """Return every single change of each item [item, choice], least error first; a choice is level × size + code."""
    levels = range(quantizer.num_levels - 1, -1, -1)
    errors = torch.cat([quantizer.errors_of_change(latent, codes, level) for level in levels], dim=1)
    choices = np.concatenate([level * quantizer.codebook_size + np.arange(quantizer.codebook_size) for level in levels])
    ordered: NDArray[np.int64] = choices[errors.argsort(dim=1, stable=True).numpy()]
    return ordered


def _singles(own: tuple[int, ...], ranked: NDArray[np.int64], size: int) -> Iterator[tuple[int, ...]]:
    for choice in ranked.tolist():
        level, code = divmod(choice, size)
        yield (*own[:level], code, *own[level + 1 :])


def _first_free(candidates: Iterable[tuple[int, ...]], occupied: set[tuple[int, ...]]) -> tuple[int, ...] | None:
    return next((candidate for candidate in candidates if candidate not in occupied), None)


def _farther(
    quantizer: Quantizer, latent: Float[Tensor, "one *parts dim"], own: tuple[int, ...], occupied: set[tuple[int, ...]]
) -> tuple[int, ...]:
    """Return the free semantic ID of least error with two codes changed, else with three; in the end any free one."""
    size, levels = quantizer.codebook_size, quantizer.num_levels
    for count in range(2, levels + 1):
        places = list(itertools.combinations(range(levels - 1, -1, -1), count))
        if len(places) * size**count > _MOST:
            break
        tried = []
        for changed in places:
            grid = np.stack(np.meshgrid(*[np.arange(size)] * count, indexing="ij"), axis=-1).reshape(-1, count)
            rows = np.tile(np.array(own), (len(grid), 1))
            rows[:, list(changed)] = grid
            tried.append(rows)
        candidates = np.concatenate(tried)
        errors = quantizer.errors(latent.expand(len(candidates), *latent.shape[1:]), torch.from_numpy(candidates))
        order = errors.argsort(stable=True).numpy()
        chosen = _first_free((tuple(row) for row in candidates[order].tolist()), occupied)
        if chosen is not None:
            return chosen
    chosen = _first_free(itertools.product(range(size), repeat=levels), occupied)
    assert chosen is not None, "the caller has counted that one is free"
    return chosen
