"""An autoencoder around a quantizer; around residual levels it is the RQ-VAE.

Axes: `item` rows, `width` of an item vector, `dim` width of a codeword.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sidrec.quantization.codebooks import Codebooks
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.losses import quantization_loss, reconstruction_loss, uniformity_loss
from sidrec.quantization.quantizer import Quantized
from sidrec.quantization.residual import ResidualQuantizer


class Autoencoder(nn.Module, ABC):
    """What the epochs train: an encoder, codebooks over its latent space, a way back, and the losses of a batch."""

    encoder: nn.Module
    quantizer: Codebooks

    def forward(
        self, vectors: Float[Tensor, "item width"], *, strength: float = 0.0, bound: float = 0.0
    ) -> tuple[Float[Tensor, "item width"], Quantized]:
        """Return the rebuilt vectors and their quantization.

        The decoder sees the quantized vector; the encoder gets the decoder's gradient as if nothing had been
        quantized (straight-through estimator).
        """
        latent = self.encoder(vectors)
        quantized: Quantized = self.quantizer(latent, strength=strength, bound=bound)
        straight = latent + (self.quantizer.rebuilt(quantized) - latent).detach()
        return self.decode(vectors, straight), quantized

    @abstractmethod
    def decode(
        self, vectors: Float[Tensor, "item width"], latent: Float[Tensor, "item *parts dim"]
    ) -> Float[Tensor, "item width"]:
        """Return what is rebuilt from latent vectors of these item vectors."""

    @abstractmethod
    def warmup_loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> Float[Tensor, ""]:
        """Return the loss before codewords are placed."""

    @abstractmethod
    def loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> tuple[Float[Tensor, ""], Quantized]:
        """Return the loss with codewords in between, and the quantization."""


class QuantizedAutoencoder(Autoencoder):
    """Encoder, residual quantizer and decoder; the decoder mirrors the encoder's widths."""

    def __init__(
        self, width: int, hidden_dims: Sequence[int], *, num_levels: int, codebook_size: int, code_dim: int
    ) -> None:
        super().__init__()
        self.encoder = perceptron((width, *hidden_dims, code_dim))
        self.quantizer = ResidualQuantizer(num_levels, codebook_size, code_dim)
        self.decoder = perceptron((code_dim, *reversed(hidden_dims), width))

    def decode(
        self, vectors: Float[Tensor, "item width"], latent: Float[Tensor, "item dim"]
    ) -> Float[Tensor, "item width"]:
        """Return the decoder's vectors; the item vectors themselves play no part."""
        rebuilt: Tensor = self.decoder(latent)
        return rebuilt

    def warmup_loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> Float[Tensor, ""]:
        """Return the reconstruction loss of the plain autoencoder."""
        return reconstruction_loss(self.decode(batch, self.encoder(batch)), batch)

    def loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> tuple[Float[Tensor, ""], Quantized]:
        """Return L_recon + L_rq + λ L_uni, the codes chosen by usage-adjusted distance.

        Source: S²GR's CoBa RQ-VAE (arXiv 2601.18664).
        """
        rebuilt, quantized = self(batch, strength=config.balance_strength, bound=config.balance_bound)
        loss = reconstruction_loss(rebuilt, batch) + quantization_loss(quantized, config.commitment_weight)
        if config.uniformity_weight > 0:
            uniformity = uniformity_loss(self.quantizer.codebooks, config.uniformity_margin)
            loss = loss + config.uniformity_weight * uniformity
        return loss, quantized


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
