"""Trainable codebooks, with a moving average of how much each code is used.

Axes: `vector` rows to quantize, `level` (or slot), `code` rows of a codebook, `dim` width.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sidrec.quantization.assign import balanced_codes, nearest_codes
from sidrec.quantization.kmeans import revive_dead_codes
from sidrec.quantization.quantizer import Quantized
from sidrec.quantization.sharding import Shards


class Codebooks(nn.Module, ABC):
    """What residual levels and parallel slots have in common; they differ in what each codebook gets to see."""

    codebooks: Float[Tensor, "level code dim"]
    usage: Float[Tensor, "level code"]

    def __init__(self, num_levels: int, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.zeros(num_levels, codebook_size, code_dim))
        self.register_buffer("usage", torch.full((num_levels, codebook_size), 1 / codebook_size))

    @abstractmethod
    def initialise(self, vectors: Float[Tensor, "vector *parts dim"], *, seed: int, iterations: int) -> None:
        """Set each codebook to the k-means centres of what it will see."""

    @abstractmethod
    def revive(self, vectors: Float[Tensor, "vector *parts dim"]) -> int:
        """Move codewords that no vector is nearest to onto badly served ones; return how many moved."""

    def words(self) -> Float[Tensor, "level code dim"]:
        """Return the codewords that vectors are compared with."""
        return self.codebooks

    @abstractmethod
    def rebuilt(self, quantized: Quantized) -> Float[Tensor, "vector *parts dim"]:
        """Return the latent vectors that the chosen codewords stand for."""

    @torch.no_grad()
    def count_usage(self, codes: Int[Tensor, "vector level"], decay: float, shards: Shards | None = None) -> None:
        """Move the usage averages towards this batch's, all ranks' batches together; nothing waits for a device."""
        ones = torch.ones_like(codes.T, dtype=self.usage.dtype)
        counts = torch.zeros_like(self.usage).scatter_add_(1, codes.T, ones)
        counts = counts if shards is None else shards.sum(counts)
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        self.usage.copy_(decay * self.usage + (1 - decay) * shares)

    @torch.no_grad()
    def _revive(self, level: int, vectors: Float[Tensor, "vector dim"]) -> int:
        """Revive one codebook for what it sees; a revived codeword counts as used like any other."""
        words = self.words()[level]
        codes = nearest_codes(vectors, words)
        dead = torch.bincount(codes, minlength=len(words)) == 0
        revived, moved = revive_dead_codes(words, codes, vectors)
        self.codebooks[level].copy_(revived)
        self.usage[level, dead] = 1 / len(words)
        return moved


def choose(
    vectors: Float[Tensor, "vector dim"],
    words: Float[Tensor, "code dim"],
    usage: Float[Tensor, " code"],
    *,
    strength: float,
    bound: float,
) -> tuple[Int[Tensor, " vector"], Float[Tensor, "vector dim"]]:
    """Return codes, and their codewords through which the codebook learns.

    Args:
        strength: of the usage adjustment; 0, as for export, assigns by plain distance. Only the choice of the code is
            adjusted, never a value that a loss sees.
        bound: of the usage adjustment.
    """
    seen, fixed = vectors.detach(), words.detach()
    codes = (
        balanced_codes(seen, fixed, usage, strength=strength, bound=bound)
        if strength > 0
        else nearest_codes(seen, fixed)
    )
    # embedding's backward is summed in a fixed order on every thread count; indexing's is not.
    return codes, nn.functional.embedding(codes, words)
