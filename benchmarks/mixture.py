"""Vectors to cluster: a seeded Gaussian mixture, in memory or in a file that is read block by block.

Axes: `item` rows, `width` of a vector.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CENTRES = 2000
_BLOCK, _READ = 65_536, 16_384


def mixture(count: int, width: int, *, seed: int = 0) -> Float[Tensor, "item width"]:
    """Return points of unit spread about centres of unit spread."""
    return torch.cat(list(_blocks(count, width, seed)))


def write_mixture(path: Path, count: int, width: int, *, seed: int = 0) -> None:
    """Write the vectors of `mixture` as little-endian float32, a block in memory at a time."""
    with path.open("wb") as file:
        for block in _blocks(count, width, seed):
            block.numpy().astype("<f4", copy=False).tofile(file)


def file_blocks(path: Path, count: int, width: int) -> Callable[[], Iterator[Float[Tensor, "item width"]]]:
    """Return what reads the first `count` vectors of such a file, block by block, as often as it is called."""

    def blocks() -> Iterator[Float[Tensor, "item width"]]:
        with path.open("rb") as file:
            for start in range(0, count, _READ):
                rows = min(_READ, count - start)
                yield torch.from_numpy(np.fromfile(file, "<f4", rows * width).reshape(rows, width))

    return blocks


def _blocks(count: int, width: int, seed: int) -> Iterator[Float[Tensor, "item width"]]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CENTRES, width, generator=generator)
    for start in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - start)
        nearby = torch.randn(rows, width, generator=generator)
        yield nearby.add_(centres[torch.randint(CENTRES, (rows,), generator=generator)])
