"""What every fit asks of its vectors before it starts."""

import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.errors import CheckFailedError, UsageError


def check_vectors(vectors: Float[Tensor, "item width"], *, first: int = 0) -> None:
    """Refuse vectors that no codebook can be fitted on.

    Args:
        first: row number of the first vector, where these are a block of more.

    Raises:
        UsageError: there is none, or they have no width.
        CheckFailedError: one is not finite; how many and the first row are named.
    """
    if vectors.shape[0] == 0 or vectors.shape[1] == 0:
        raise UsageError(
            f"{vectors.shape[0]} item vectors of width {vectors.shape[1]}: there is nothing to fit a codebook on",
            next_step="give every item a vector; see docs/your-data.md",
        )
    broken = ~torch.isfinite(vectors).all(dim=1)
    count = int(broken.sum())
    if count:
        row = first + int(broken.nonzero()[0])
        raise CheckFailedError(
            f"{count:,} item vectors are not finite, row {row:,} first",
            next_step="find where the vectors come from; a codebook of NaN would give every item the same code",
        )
