"""A fitted quantizer: a frozen encoder into a latent space, and the codebooks that quantize it.

Every kind of fit ends in this one form. Residual quantizers (k-means, RQ-VAE) have levels, each quantizing what the
levels before it left over; parallel ones (MPQ) have slots, each quantizing its own part of the latent vector.

Axes: `item` rows, `width` of an item vector, `level` (or slot) codes of a semantic ID, `code` entries of one codebook,
`dim` width of a codeword. A latent vector is [dim] when residual, [level, dim] when parallel.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sidrec.quantization.assign import nearest_codes, squared_distances
from sidrec.quantization.config import QuantizerKind

# Items encoded at a time: memory does not grow with the catalogue.
_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Quantized:
    """Codes of a batch, the codewords chosen, and the residual that each level saw."""

    codes: Int[Tensor, "vector level"]
    codewords: Float[Tensor, "vector level dim"]
    residuals: Float[Tensor, "vector level dim"]

    @property
    def total(self) -> Float[Tensor, "vector dim"]:
        """The quantized vectors: the sum of the chosen codewords over levels."""
        return self.codewords.sum(dim=1)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Codebooks over the latent space of a frozen encoder; None encodes a vector as itself."""

    kind: QuantizerKind
    codebooks: Float[Tensor, "level code dim"]
    encoder: nn.Module | None = None

    @property
    def parallel(self) -> bool:
        """Whether codes are unordered slots of a latent vector in parts, not levels of one residual."""
        return self.kind == "mpq"

    @property
    def num_levels(self) -> int:
        """Codes of a semantic ID before any collision is resolved."""
        return len(self.codebooks)

    @property
    def codebook_size(self) -> int:
        """Codewords a level."""
        return self.codebooks.shape[1]

    @torch.no_grad()
    def latent(self, vectors: Float[Tensor, "item width"]) -> Float[Tensor, "item *parts dim"]:
        """Return the latent vectors of item vectors."""
        if self.encoder is None:
            return vectors
        return torch.cat([self.encoder(block) for block in torch.split(vectors, _BLOCK)])

    @torch.no_grad()
    def quantize(self, latent: Float[Tensor, "item *parts dim"]) -> Quantized:
        """Return codes by plain distance, level by level."""
        codes, codewords, residuals = [], [], []
        residual = latent
        for level, codebook in enumerate(self.codebooks):
            seen = latent[:, level] if self.parallel else residual
            chosen = nearest_codes(seen, codebook)
            codes.append(chosen)
            codewords.append(codebook[chosen])
            residuals.append(seen)
            residual = residual if self.parallel else residual - codebook[chosen]
        return Quantized(torch.stack(codes, dim=1), torch.stack(codewords, dim=1), torch.stack(residuals, dim=1))

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "item width"]) -> Int[Tensor, "item level"]:
        """Return the codes of item vectors by plain distance."""
        return self.quantize(self.latent(vectors)).codes

    def unexplained(
        self, latent: Float[Tensor, "item *parts dim"], codes: Int[Tensor, "item level"]
    ) -> Float[Tensor, "item *parts dim"]:
        """Return what the codewords of these codes leave of the latent vectors."""
        words = torch.stack([book[codes[:, level]] for level, book in enumerate(self.codebooks)], dim=1)
        return latent - (words if self.parallel else words.sum(dim=1))

    def errors(
        self, latent: Float[Tensor, "item *parts dim"], codes: Int[Tensor, "item level"]
    ) -> Float[Tensor, " item"]:
        """Return the squared length of what these codes leave over; codes beyond the levels do not count."""
        return self.unexplained(latent, codes).flatten(1).square().sum(dim=-1)

    def errors_of_change(
        self, latent: Float[Tensor, "item *parts dim"], codes: Int[Tensor, "item level"], level: int
    ) -> Float[Tensor, "item code"]:
        """Return the error of each item were its code at `level` any other one, its further codes as they are."""
        left = self.unexplained(latent, codes)
        own = (left[:, level] if self.parallel else left) + self.codebooks[level][codes[:, level]]
        rest = left.flatten(1).square().sum(dim=-1) - left[:, level].square().sum(dim=-1) if self.parallel else 0.0
        changed = squared_distances(own, self.codebooks[level])
        return changed + rest[:, None] if isinstance(rest, Tensor) else changed

    def energy(self, latent: Float[Tensor, "item *parts dim"]) -> Float[Tensor, " item"]:
        """Return the squared length of the latent vectors, which errors are a share of."""
        return latent.flatten(1).square().sum(dim=-1)

    def relative_errors(
        self, latent: Float[Tensor, "item *parts dim"], codes: Int[Tensor, "item level"]
    ) -> Float[Tensor, " item"]:
        """Return the errors of these codes as a share of the latent vectors' squared length."""
        return self.errors(latent, codes) / self.energy(latent).clamp(min=1e-12)

    def with_codebooks(self, codebooks: Float[Tensor, "level code dim"]) -> "Quantizer":
        """Return the same latent space with other codewords."""
        return replace(self, codebooks=codebooks)

    def to(self, device: torch.device | str) -> "Quantizer":
        """Return the quantizer on another device; its encoder moves with it."""
        encoder = None if self.encoder is None else self.encoder.to(device)
        return replace(self, codebooks=self.codebooks.to(device), encoder=encoder)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A quantizer and how its fit went: one row a look, the last row's figures those of the quantizer itself."""

    quantizer: Quantizer
    history: list[dict[str, float]]
