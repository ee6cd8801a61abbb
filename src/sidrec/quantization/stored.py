"""Vectors that stay in their file: each rank streams its own range of rows, and no rank ever holds them all.

Axes: `item` rows of a block, `width` of an item vector.
"""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.residual_kmeans import Blocks
from sidrec.quantization.sharding import Shards

_ROWS = 1 << 14


def stored_vectors(path: Path, *, name: str = "vectors", shards: Shards | None = None, rows: int = _ROWS) -> Blocks:
    """Return this rank's vectors of a safetensors file, for `fit_blocks`: ranges of ranks are apart and cover all.

    Args:
        rows: vectors in memory at a time.

    Raises:
        UsageError: there are fewer vectors than ranks.
    """
    shards = shards or Shards()
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call, unused-ignore]
        count = int(file.get_slice(name).get_shape()[0])
    if count < shards.count:
        raise UsageError(
            f"{path} has {count} vectors, and there are {shards.count} ranks",
            next_step="start no more ranks than there are vectors",
        )
    first, end = count * shards.rank // shards.count, count * (shards.rank + 1) // shards.count

    def blocks() -> Iterator[Float[Tensor, "item width"]]:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call, unused-ignore]
            stored = file.get_slice(name)
            for start in range(first, end, rows):
                yield stored[start : min(start + rows, end)].float()

    return blocks
