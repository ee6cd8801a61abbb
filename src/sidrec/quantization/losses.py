"""Losses of a quantized autoencoder, with residual levels or with parallel experts.

Axes: `vector` rows of a batch, `level` of the quantizer, `code` rows of a codebook, `dim` width; `slot` of an expert,
`feature` entries of its first layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

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


def orthogonality_loss(weights: Float[Tensor, "slot feature"]) -> Float[Tensor, ""]:
    """Return |V Vᵀ - I|², V the rows brought to unit length: 0 when every two experts' weights are orthogonal.

    Source: MMQ's orthogonal regularisation of experts; REG4Rec (arXiv 2508.15308) names one, its form is not public.

    Args:
        weights: of each expert's first layer, flattened.
    """
    rows = normalize(weights, dim=-1)
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype)).square().sum()


def decorrelation_loss(latent: Float[Tensor, "vector slot dim"]) -> Float[Tensor, ""]:
    """Return the mean squared cosine between two experts' outputs, over vectors and ordered pairs of experts."""
    slots = latent.shape[1]
    if slots < 2:
        return latent.new_zeros(())
    rows = normalize(latent, dim=-1)
    squared = (rows @ rows.transpose(1, 2)).square().mean(dim=0)
    return (squared.sum() - squared.diagonal().sum()) / (slots * (slots - 1))


def router_balance_loss(gates: Float[Tensor, "vector slot"]) -> Float[Tensor, ""]:
    """Return M Σ h̄², h̄ the mean gate of each of M experts: 1 when all weigh alike, M when one takes everything."""
    return gates.shape[1] * gates.mean(dim=0).square().sum()
