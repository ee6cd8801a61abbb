"""A residual quantizer: each level quantizes what the levels before it left over.

Axes: `vector` rows to quantize, `level` coarsest first, `code` rows of a codebook, `dim` width.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.quantization.assign import nearest_codes
from sidrec.quantization.codebooks import Codebooks, choose
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.quantizer import Quantized


class ResidualQuantizer(Codebooks):
    """Codebooks of all levels."""

    @torch.no_grad()
    def initialise(self, vectors: Float[Tensor, "vector dim"], *, seed: int, iterations: int) -> None:
        """Set each level's codewords to the k-means centres of the residuals it will see."""
        residuals = vectors
        for level, codebook in enumerate(self.codebooks):
            clusters = kmeans(residuals, len(codebook), seed=seed + level, iterations=iterations)
            codebook.copy_(clusters.centres)
            residuals = residuals - clusters.centres[clusters.assignment]

    def forward(self, vectors: Float[Tensor, "vector dim"], *, strength: float = 0.0, bound: float = 0.0) -> Quantized:
        """Return the codes of `vectors` and what the losses need; `choose` has the arguments."""
        residual = vectors
        codes, codewords, residuals = [], [], []
        for words, usage in zip(self.words(), self.usage, strict=True):
            chosen, codeword = choose(residual, words, usage, strength=strength, bound=bound)
            codes.append(chosen)
            codewords.append(codeword)
            residuals.append(residual)
            # Without gradient: a level's codewords answer for their own level's error alone.
            residual = residual - codeword.detach()
        return Quantized(torch.stack(codes, dim=1), torch.stack(codewords, dim=1), torch.stack(residuals, dim=1))

    def rebuilt(self, quantized: Quantized) -> Float[Tensor, "vector dim"]:
        """Return the sum of the chosen codewords over levels."""
        return quantized.total

    @torch.no_grad()
    def revive(self, vectors: Float[Tensor, "vector dim"]) -> int:
        """Move codewords that no vector is nearest to onto badly served residuals; return how many moved."""
        revived = 0
        residuals = vectors
        for level, codebook in enumerate(self.codebooks):
            revived += self._revive(level, residuals)
            residuals = residuals - codebook[nearest_codes(residuals, codebook)]
        return revived
