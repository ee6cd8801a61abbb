"""A residual quantizer: each level quantizes what the levels before it left over.

Axes: `vector` rows to quantize, `level` coarsest first, `code` rows of a codebook, `dim` width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sidrec.quantization.assign import balanced_codes, nearest_codes, update_usage
from sidrec.quantization.kmeans import kmeans, revive_dead_codes
from sidrec.quantization.quantizer import Quantized


class ResidualQuantizer(nn.Module):
    """Codebooks of all levels, with a moving average of how much each code is used."""

    codebooks: Float[Tensor, "level code dim"]
    usage: Float[Tensor, "level code"]

    def __init__(self, num_levels: int, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.zeros(num_levels, codebook_size, code_dim))
        self.register_buffer("usage", torch.full((num_levels, codebook_size), 1 / codebook_size))

    @torch.no_grad()
    def initialise(self, vectors: Float[Tensor, "vector dim"], *, seed: int, iterations: int) -> None:
        """Set each level's codewords to the k-means centres of the residuals it will see."""
        residuals = vectors
        for level, codebook in enumerate(self.codebooks):
            clusters = kmeans(residuals, len(codebook), seed=seed + level, iterations=iterations)
            codebook.copy_(clusters.centres)
            residuals = residuals - clusters.centres[clusters.assignment]

    def forward(self, vectors: Float[Tensor, "vector dim"], *, strength: float = 0.0, bound: float = 0.0) -> Quantized:
        """Return the codes of `vectors` and what the losses need.

        Args:
            strength: of the usage adjustment; 0, as for export, assigns by plain distance. Only the choice of the
                code is adjusted, never a value that a loss sees.
            bound: of the usage adjustment.
        """
        residual = vectors
        codes, codewords, residuals = [], [], []
        for codebook, usage in zip(self.codebooks, self.usage, strict=True):
            seen, words = residual.detach(), codebook.detach()
            chosen = (
                balanced_codes(seen, words, usage, strength=strength, bound=bound)
                if strength > 0
                else nearest_codes(seen, words)
            )
            codes.append(chosen)
            # embedding's backward is summed in a fixed order on every thread count; indexing's is not.
            codewords.append(nn.functional.embedding(chosen, codebook))
            residuals.append(residual)
            # Without gradient: a level's codewords answer for their own level's error alone.
            residual = residual - codewords[-1].detach()
        return Quantized(torch.stack(codes, dim=1), torch.stack(codewords, dim=1), torch.stack(residuals, dim=1))

    @torch.no_grad()
    def count_usage(self, codes: Int[Tensor, "vector level"], decay: float) -> None:
        """Move the usage averages towards this batch's."""
        for level, usage in enumerate(self.usage):
            usage.copy_(update_usage(usage, codes[:, level], decay))

    @torch.no_grad()
    def revive(self, vectors: Float[Tensor, "vector dim"]) -> int:
        """Move codewords that no vector is nearest to onto badly served residuals; return how many moved."""
        revived = 0
        residuals = vectors
        for codebook, usage in zip(self.codebooks, self.usage, strict=True):
            codes = nearest_codes(residuals, codebook)
            dead = torch.bincount(codes, minlength=len(codebook)) == 0
            words, moved = revive_dead_codes(codebook, codes, residuals)
            codebook.copy_(words)
            usage[dead] = 1 / len(usage)
            revived += moved
            residuals = residuals - codebook[nearest_codes(residuals, codebook)]
        return revived
