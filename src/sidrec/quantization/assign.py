"""Nearest-codeword assignment, plain and adjusted by how much each code is used.

Axes: `vector` rows to quantize, `code` rows of one codebook, `dim` width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Scores of a block of rows: they stay in the cache, and memory does not grow with the catalogue.
_SCORES = 1 << 18
_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


def squared_distances(
    vectors: Float[Tensor, "vector dim"], codebook: Float[Tensor, "code dim"]
) -> Float[Tensor, "vector code"]:
    """Return the squared Euclidean distance of every vector to every codeword, never negative."""
    cross = torch.addmm(codebook.square().sum(dim=-1), vectors, codebook.T, alpha=-2)
    # |v - c|² = |v|² - 2 v·c + |c|² rounds below zero where a vector is its codeword.
    return cross.add_(vectors.square().sum(dim=-1, keepdim=True)).clamp_(min=0)


@torch.no_grad()
def nearest_codes(vectors: Float[Tensor, "vector dim"], codebook: Float[Tensor, "code dim"]) -> Int[Tensor, " vector"]:
    """Return, for each vector, the code of its closest codeword; exact ties go to the lowest code."""
    # |v|² is the same for every code, so it is left out.
    lengths = codebook.square().sum(dim=-1)
    weights = (-2 * codebook).T.contiguous()
    blocks = blocks_of(vectors, len(codebook))
    scores = vectors.new_empty(len(blocks[0]) if blocks else 0, len(codebook))
    codes = [lowest(torch.addmm(lengths, block, weights, out=scores[: len(block)]), overwrite=True) for block in blocks]
    return torch.cat(codes) if codes else vectors.new_zeros(0, dtype=torch.int64)


def lowest(scores: Float[Tensor, "vector code"], *, overwrite: bool = False) -> Int[Tensor, " vector"]:
    """Return the code of each row's lowest score, the first of equal ones.

    Minima run over whole registers, where argmin goes number by number and takes longer than the scores. A gap to the
    row's minimum is never negative, so its bits order as a whole number; the code takes the lowest of them, which are
    zero where the gap is and else change no gap that is not itself next to nothing (below 1e-40 in float32).

    Args:
        overwrite: leave the scores unreadable, which saves a copy of them.
    """
    count, whole = scores.shape[1], _WHOLE.get(scores.dtype)
    if whole is None or scores.device.type != "cpu" or count > 1 << 16:
        return scores.argmin(dim=1)
    mask = (1 << (count - 1).bit_length()) - 1
    # Without its sign a gap of minus zero is a gap of zero.
    gap_bits = torch.iinfo(whole).max ^ mask
    least = scores.amin(dim=1, keepdim=True)
    keys = (scores.sub_(least) if overwrite else scores - least).view(whole).bitwise_and_(gap_bits)
    return keys.bitwise_or_(torch.arange(count, dtype=whole)).amin(dim=1).bitwise_and_(mask).long()


def blocks_of(vectors: Float[Tensor, "vector dim"], codebook_size: int) -> tuple[Tensor, ...]:
    """Return the vectors in blocks whose scores against a codebook stay in the cache."""
    return torch.split(vectors, max(64, _SCORES // codebook_size)) if len(vectors) else ()


def usage_factors(usage: Float[Tensor, " code"], *, strength: float, bound: float) -> Float[Tensor, " code"]:
    """Return the factor on each code's distance: below 1 for rarely used codes, above 1 for crowded ones.

    Source: CoBa RQ-VAE of S²GR (arXiv 2601.18664) gives bounded usage-adjusted distances in words only; this form,
    1 + clip(strength · (usage · K - 1), ±bound), is our choice: it multiplies, so one setting fits every level.

    Args:
        usage: share of assignments by code, summing to 1.
    """
    return 1 + (strength * (usage * len(usage) - 1)).clamp(-bound, bound)


def balanced_codes(
    vectors: Float[Tensor, "vector dim"],
    codebook: Float[Tensor, "code dim"],
    usage: Float[Tensor, " code"],
    *,
    strength: float,
    bound: float,
) -> Int[Tensor, " vector"]:
    """Return the codes of least usage-adjusted distance; with uniform usage those of `nearest_codes`."""
    factors = usage_factors(usage, strength=strength, bound=bound)
    blocks = [lowest(squared_distances(block, codebook) * factors) for block in blocks_of(vectors, len(codebook))]
    return torch.cat(blocks) if blocks else vectors.new_zeros(0, dtype=torch.int64)
