"""An autoencoder around a residual quantizer: RQ-VAE.

Axes: `item` rows, `width` of an item vector, `dim` width of a codeword.
"""

import itertools
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sidrec.quantization.quantizer import Quantized
from sidrec.quantization.residual import ResidualQuantizer


class QuantizedAutoencoder(nn.Module):
    """Encoder, residual quantizer and decoder; the decoder mirrors the encoder's widths."""

    def __init__(
        self, width: int, hidden_dims: Sequence[int], *, num_levels: int, codebook_size: int, code_dim: int
    ) -> None:
        super().__init__()
        self.encoder = perceptron((width, *hidden_dims, code_dim))
        self.quantizer = ResidualQuantizer(num_levels, codebook_size, code_dim)
        self.decoder = perceptron((code_dim, *reversed(hidden_dims), width))

    def forward(
        self, vectors: Float[Tensor, "item width"], *, strength: float = 0.0, bound: float = 0.0
    ) -> tuple[Float[Tensor, "item width"], Quantized]:
        """Return the rebuilt vectors and their quantization.

        The decoder sees the quantized vector; the encoder gets the decoder's gradient as if nothing had been
        quantized (straight-through estimator).
        """
        latent = self.encoder(vectors)
        quantized: Quantized = self.quantizer(latent, strength=strength, bound=bound)
        rebuilt = self.decoder(latent + (quantized.total - latent).detach())
        return rebuilt, quantized


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
