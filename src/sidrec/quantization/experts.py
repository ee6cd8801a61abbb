"""Parallel experts that each see an item vector their own way, and the router that weighs them.

Axes: `item` rows, `width` of an item vector, `slot` of an expert, `dim` width of its latent vector.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from sidrec.quantization.sharding import Shards

# Directions of less than this share of the largest variance are noise, which whitening must not blow up.
_VARIANCE_FLOOR = 1e-3
# Of the outputs that an expert's own block does not fill, at first.
_FAINT = 0.1


class ExpertEncoder(nn.Module):
    """One perceptron a slot, all of one shape, and a linear router; a latent vector has one unit vector a slot."""

    def __init__(self, width: int, hidden_dims: Sequence[int], num_slots: int, code_dim: int) -> None:
        super().__init__()
        widths = (*hidden_dims, code_dim)
        self.num_slots = num_slots
        self.router = nn.Linear(width, num_slots)
        # All experts read the same vectors, so their first layers are one product.
        self.first = nn.Linear(width, num_slots * widths[0])
        self.further = nn.ModuleList(
            SlotLinear(num_slots, before, after) for before, after in itertools.pairwise(widths)
        )

    def forward(self, vectors: Float[Tensor, "item width"]) -> Float[Tensor, "item slot dim"]:
        """Return the experts' outputs, each of length 1, so that plain distance orders codewords as cosine does."""
        outputs = self.first(vectors).unflatten(1, (self.num_slots, -1)).transpose(0, 1)
        for layer in self.further:
            outputs = layer(outputs.relu())
        return normalize(outputs.transpose(0, 1), dim=-1)

    def gates(self, vectors: Float[Tensor, "item width"]) -> Float[Tensor, "item slot"]:
        """Return how much each expert counts for each item; an item's gates sum to 1."""
        weights: Tensor = self.router(vectors)
        return weights.softmax(dim=-1)

    def first_layers(self) -> Float[Tensor, "slot feature"]:
        """Return the first layer's weights of each expert, flattened."""
        return self.first.weight.view(self.num_slots, -1)

    @torch.no_grad()
    def see_blocks(self, matrix: Float[Tensor, "width width"], offset: Float[Tensor, " width"]) -> None:
        """Let each expert begin with its own block of the coordinates `matrix @ vector + offset`; gates begin equal.

        Through a ReLU, x passes as the pair x and -x. Blocks lie side by side in the latent space as far as it is
        wide, so that the decoder can tell them apart in the weighted sum.
        """
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)
        further = [layer for layer in self.further if isinstance(layer, SlotLinear)]
        hidden = [layer.weight.shape[1] for layer in further]
        code_dim = further[-1].weight.shape[2] if further else len(self.first.weight) // self.num_slots
        most = min([code_dim, *(size // 2 for size in hidden)])
        rows = torch.arange(len(matrix)).tensor_split(self.num_slots)
        weight = self.first.weight.view(self.num_slots, -1, len(matrix))
        bias = self.first.bias.view(self.num_slots, -1)
        start = 0
        for slot, block in enumerate(rows):
            # With more experts than coordinates, some share one.
            own = (block if len(block) else torch.tensor([slot % len(matrix)]))[:most]
            out = (start + torch.arange(len(own))) % code_dim
            start += len(own)
            if not further:
                weight[slot] *= _FAINT
                bias[slot] *= _FAINT
                weight[slot, out], bias[slot, out] = matrix[own], offset[own]
                continue
            pair = torch.arange(2 * len(own))
            weight[slot, pair] = torch.cat([matrix[own], -matrix[own]])
            bias[slot, pair] = torch.cat([offset[own], -offset[own]])
            for layer in further[:-1]:
                layer.weight[slot, :, pair] = 0
                layer.weight[slot, pair, pair] = 1
                layer.bias[slot, 0, pair] = 0
            last = further[-1]
            last.weight[slot] *= _FAINT
            last.weight[slot, :, out] = 0
            last.weight[slot, pair[: len(own)], out] = 1
            last.weight[slot, pair[len(own) :], out] = -1


class SlotLinear(nn.Module):
    """A linear layer a slot, at first as random as torch's own."""

    def __init__(self, num_slots: int, before: int, after: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(before)
        self.weight = nn.Parameter(torch.empty(num_slots, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_slots, 1, after).uniform_(-bound, bound))

    def forward(self, vectors: Float[Tensor, "slot item before"]) -> Float[Tensor, "slot item after"]:
        """Return each slot's rows times its own weights."""
        return torch.baddbmm(self.bias, vectors, self.weight)


@torch.no_grad()
def rotated_whitening(
    vectors: Float[Tensor, "item width"], *, seed: int, shards: Shards
) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
    """Return the matrix and offset of a random rotation of the PCA-whitened vectors, all ranks' together.

    Blocks of its coordinates share no direction and carry about equally much, as in optimised product quantization.
    """
    width = vectors.shape[1]
    exact = vectors.double()
    count = shards.sum(torch.tensor([float(len(vectors))], dtype=torch.float64, device=vectors.device))
    mean = shards.sum(exact.sum(dim=0)) / count
    centred = exact - mean
    covariance = shards.sum(centred.T @ centred) / count
    variances, directions = torch.linalg.eigh(covariance.cpu())
    largest = float(variances[-1])
    # Equal vectors vary in no direction; any scale then serves.
    scale = variances.clamp(min=_VARIANCE_FLOOR * largest).rsqrt() if largest > 0 else torch.ones_like(variances)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    matrix = shards.broadcast(((rotation * scale) @ directions.T).to(vectors.device))
    return matrix.to(vectors.dtype), -(matrix @ mean).to(vectors.dtype)
