"""Losses of a residual-quantized autoencoder.

Axes: `vector` rows of a batch, `level` of the quantizer, `code` rows of a codebook, `dim` width.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.quantization.quantizer import Quantized


def reconstruction_loss(rebuilt: Float[Tensor, "vector dim"], target: Float[Tensor, "vector dim"]) -> Float[Tensor, ""]:
    """Return the mean over vectors of the squared distance to the target."""
    return (rebuilt - target).square().sum(dim=-1).mean()


def quantization_loss(quantized: Quantized, commitment_weight: float) -> Float[Tensor, ""]:
    """Return Σ over levels of the codeword term and the weighted commitment term, mean over vectors.

    Source: RQ-VAE, L_rq = Σ_l |sg(r_l) - e_l|² + μ |r_l - sg(e_l)|².
    """
    codeword = (quantized.residuals.detach() - quantized.codewords).square().sum(dim=-1)
    commitment = (quantized.residuals - quantized.codewords.detach()).square().sum(dim=-1)
    return (codeword + commitment_weight * commitment).sum(dim=-1).mean()


def uniformity_loss(codebooks: Float[Tensor, "level code dim"], margin: float) -> Float[Tensor, ""]:
    """Return the mean squared shortfall of code-pair distances below `margin` × the level's mean distance.

    Source: S²GR repels different codewords below a distance threshold, in words only; the relative margin is our
    choice, so that one setting works at every level although residuals shrink.
    """
    num_codes = codebooks.shape[1]
    if num_codes < 2:
        return codebooks.new_zeros(())
    lengths = codebooks.square().sum(dim=-1)
    squared = lengths.unsqueeze(2) + lengths.unsqueeze(1) - 2 * codebooks @ codebooks.transpose(1, 2)
    # The root has no slope at zero, where two codewords coincide; the floor keeps the gradient finite.
    distances = squared.clamp(min=1e-12).sqrt()
    different = ~torch.eye(num_codes, dtype=torch.bool, device=codebooks.device)
    pairs = num_codes * (num_codes - 1)
    threshold = margin * (distances.detach() * different).sum(dim=(1, 2), keepdim=True) / pairs
    shortfall = (threshold - distances).clamp(min=0).square() * different
    return (shortfall.sum(dim=(1, 2)) / pairs).mean()
