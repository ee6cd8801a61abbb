"""Codewords fitted again in the latent space of an old codebook, numbered as the old ones are.

Axes: `item` rows, `level` (or slot), `code` entries of one codebook, `dim` width of a codeword.
"""

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from sidrec.quantization.assign import nearest_codes, squared_distances
from sidrec.quantization.kmeans import lloyd
from sidrec.quantization.quantizer import Quantizer


def refit(quantizer: Quantizer, latent: Float[Tensor, "item *parts dim"], *, iterations: int) -> Quantizer:
    """Return the quantizer with codewords of these latent vectors; its encoder stays.

    Lloyd's iterations start from the old codewords, so a code keeps its meaning where the items did not change; a code
    that no item is near to moves to the worst served one.
    """
    books = []
    residual = latent
    for level, old in enumerate(quantizer.codebooks):
        seen = latent[:, level] if quantizer.parallel else residual
        words = lloyd(seen, old, iterations).centres
        if quantizer.parallel:
            words = normalize(words, dim=-1)
        words = words[match_codes(old, words)]
        books.append(words)
        if not quantizer.parallel:
            residual = residual - words[nearest_codes(residual, words)]
    return quantizer.with_codebooks(torch.stack(books))


def match_codes(old: Float[Tensor, "code dim"], new: Float[Tensor, "code dim"]) -> list[int]:
    """Return, for every old code, the new codeword that takes its number: the assignment of least total distance."""
    _, chosen = linear_sum_assignment(squared_distances(old, new).double().numpy())
    matched: list[int] = chosen.tolist()
    return matched
