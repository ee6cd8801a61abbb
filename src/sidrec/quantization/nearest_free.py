"""Colliding items move to the free semantic ID of least error, as few codes changed as possible.

Axes: `item` rows, `level` (or slot), `code` entries of one codebook, `choice` one code changed: level times code.
"""

import itertools
from collections.abc import Iterable, Iterator
from functools import lru_cache

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
# Of these, how many are put in order at first.
_FEW = 1024
# Searches of several changes that are kept: each holds the order of all it has scored.
_SEARCHES = 64


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
    size, levels = quantizer.codebook_size, quantizer.num_levels
    total = size**levels
    occupied = {tuple(row) for row in (() if taken is None else taken.tolist())}
    resolved = codes.copy()
    movers = _movers(quantizer, latent, codes, rank, occupied)
    kept = np.setdiff1d(np.arange(len(codes)), movers)
    occupied.update(tuple(row) for row in codes[kept].tolist())
    # What is occupied stays so: codes without a free single change, and searches as far as they went, are not tried
    # again. Without that, a catalogue of many equal vectors would take quadratic time.
    crowded: set[tuple[int, ...]] = set()
    everything = itertools.product(range(size), repeat=levels)

    @lru_cache(_SEARCHES)
    def search(own: tuple[int, ...], vector: bytes) -> Iterator[tuple[int, ...]]:
        one = torch.frombuffer(bytearray(vector), dtype=latent.dtype).reshape(1, *latent.shape[1:])
        return _several_changes(quantizer, one, own)

    for start in range(0, len(movers), _BLOCK):
        block = movers[start : start + _BLOCK]
        ranked = _single_changes(quantizer, latent[block], torch.from_numpy(codes[block].astype(np.int64)))
        for position, item in enumerate(block.tolist()):
            if len(occupied) >= total:
                if taken is None:
                    return resolved
                raise CheckFailedError(
                    f"all {total:,} semantic IDs of {levels} codes among {size} are taken; "
                    f"{len(movers) - start - position:,} items have none",
                    next_step="fit a larger codebook (codebook.codebook_size), and train from scratch",
                )
            own = tuple(codes[item].tolist())
            chosen = None if own in crowded else _first_free(_singles(own, ranked[position], size), occupied)
            if chosen is None:
                crowded.add(own)
                chosen = _first_free(search(own, latent[item].numpy().tobytes()), occupied)
            if chosen is None:
                chosen = _first_free(everything, occupied)
            assert chosen is not None, "fewer are occupied than there are"
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


def _several_changes(
    quantizer: Quantizer, latent: Float[Tensor, "one *parts dim"], own: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Yield every semantic ID with two codes changed, least error first, then with three, while they can be scored."""
    size, levels = quantizer.codebook_size, quantizer.num_levels
    for count in range(2, levels + 1):
        places = list(itertools.combinations(range(levels - 1, -1, -1), count))
        if len(places) * size**count > _MOST:
            return
        errors = np.concatenate([_errors_of_changes(quantizer, latent, own, changed) for changed in places])
        for position in _by_error(errors):
            place, choice = divmod(position, size**count)
            changed_to = list(own)
            for level in reversed(places[place]):
                choice, changed_to[level] = divmod(choice, size)
            yield tuple(changed_to)


def _errors_of_changes(
    quantizer: Quantizer, latent: Float[Tensor, "one *parts dim"], own: tuple[int, ...], changed: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the errors of all codes at the levels `changed` [choice]; the last of these levels counts fastest."""
    *outer, last = changed
    codes = torch.tensor([own]).repeat(quantizer.codebook_size ** len(outer), 1)
    codes[:, outer] = torch.cartesian_prod(*[torch.arange(quantizer.codebook_size)] * len(outer)).view(-1, len(outer))
    errors = quantizer.errors_of_change(latent.expand(len(codes), *latent.shape[1:]), codes, last)
    return errors.flatten().numpy()


def _by_error(errors: NDArray[np.float32]) -> Iterator[int]:
    """Yield positions, least error first, equal ones in order; the first few do not wait for all to be sorted."""
    left, few = np.arange(len(errors)), _FEW
    while len(left):
        few = min(few, len(left))
        near = ~(errors[left] > np.partition(errors[left], few - 1)[few - 1])
        part, left, few = left[near], left[~near], few * 4
        yield from part[np.argsort(errors[part], kind="stable")].tolist()
