"""A parallel quantizer: each slot quantizes its own part of the latent vector, on the unit sphere.

Axes: `vector` rows to quantize, `slot`, `code` rows of a codebook, `dim` width.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sidrec.quantization.codebooks import Codebooks, choose
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.quantizer import Quantized


class ParallelQuantizer(Codebooks):
    """Codebooks of all slots; only the directions of their rows count."""

    def words(self) -> Float[Tensor, "slot code dim"]:
        """Return the codewords, of length 1."""
        return normalize(self.codebooks, dim=-1)

    @torch.no_grad()
    def initialise(self, vectors: Float[Tensor, "vector slot dim"], *, seed: int, iterations: int) -> None:
        """Set each slot's codewords to the k-means centres of its part of the vectors."""
        for slot, codebook in enumerate(self.codebooks):
            clusters = kmeans(vectors[:, slot], len(codebook), seed=seed + slot, iterations=iterations)
            codebook.copy_(normalize(clusters.centres, dim=-1))

    def forward(
        self, vectors: Float[Tensor, "vector slot dim"], *, strength: float = 0.0, bound: float = 0.0
    ) -> Quantized:
        """Return the codes of `vectors` and what the losses need; `choose` has the arguments."""
        chosen = [
            choose(vectors[:, slot], words, usage, strength=strength, bound=bound)
            for slot, (words, usage) in enumerate(zip(self.words(), self.usage, strict=True))
        ]
        codes, codewords = zip(*chosen, strict=True)
        return Quantized(torch.stack(codes, dim=1), torch.stack(codewords, dim=1), vectors)

    def rebuilt(self, quantized: Quantized) -> Float[Tensor, "vector slot dim"]:
        """Return the chosen codewords, slot by slot."""
        return quantized.codewords

    @torch.no_grad()
    def revive(self, vectors: Float[Tensor, "vector slot dim"]) -> int:
        """Move codewords that no vector is nearest to onto badly served ones; return how many moved."""
        return sum(self._revive(slot, vectors[:, slot]) for slot in range(len(self.codebooks)))
