"""MPQ: parallel experts with a codebook each, whose codewords a router weighs for one shared decoder.

Axes: `item` rows of this rank, `width` of an item vector, `slot` of an expert and its codebook, `dim` of a codeword.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.autoencoder import Autoencoder, perceptron
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.epochs import train
from sidrec.quantization.experts import ExpertEncoder, rotated_whitening
from sidrec.quantization.inputs import check_vectors
from sidrec.quantization.losses import (
    decorrelation_loss,
    orthogonality_loss,
    quantization_loss,
    reconstruction_loss,
    router_balance_loss,
)
from sidrec.quantization.parallel import ParallelQuantizer
from sidrec.quantization.quantizer import Fitted, Quantized, Quantizer
from sidrec.quantization.sharding import Shards

# The experts' outputs beside their weights, within the orthogonality term.
_OUTPUT_SHARE = 0.1
# Items routed at a time.
_BLOCK = 65_536


class MixtureAutoencoder(Autoencoder):
    """Experts, parallel quantizer and one decoder, which mirrors an expert's widths."""

    encoder: ExpertEncoder

    def __init__(
        self, width: int, hidden_dims: Sequence[int], *, num_slots: int, codebook_size: int, code_dim: int
    ) -> None:
        super().__init__()
        self.encoder = ExpertEncoder(width, hidden_dims, num_slots, code_dim)
        self.quantizer = ParallelQuantizer(num_slots, codebook_size, code_dim)
        self.decoder = perceptron((code_dim, *reversed(hidden_dims), width))

    def decode(
        self, vectors: Float[Tensor, "item width"], latent: Float[Tensor, "item slot dim"]
    ) -> Float[Tensor, "item width"]:
        """Return what the decoder makes of the experts' vectors, weighed by the router."""
        rebuilt: Tensor = self.decoder((self.encoder.gates(vectors).unsqueeze(-1) * latent).sum(dim=1))
        return rebuilt

    def warmup_loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> Float[Tensor, ""]:
        """Return L_rec of the unquantized experts, which stay as they are: only the way back learns.

        Free to move before they have codewords, experts grow alike and more items end with equal codes.
        """
        balance = config.router_balance_weight * router_balance_loss(self.encoder.gates(batch))
        return reconstruction_loss(self.decode(batch, self.encoder(batch).detach()), batch) + balance

    def loss(self, batch: Float[Tensor, "item width"], config: CodebookConfig) -> tuple[Float[Tensor, ""], Quantized]:
        """Return L_rec + L_cb + λ L_orth + λ L_bal, the codes chosen by usage-adjusted distance.

        Source: REG4Rec's MPQ (arXiv 2508.15308), which names reconstruction and orthogonality without their forms.
        L_cb, the balance of the router and the adjusted distance (S²GR's) are our choice.
        """
        rebuilt, quantized = self(batch, strength=config.balance_strength, bound=config.balance_bound)
        loss = reconstruction_loss(rebuilt, batch) + quantization_loss(quantized, config.commitment_weight)
        return loss + self._diversity(batch, quantized.residuals, config), quantized

    def _diversity(
        self, batch: Float[Tensor, "item width"], latent: Float[Tensor, "item slot dim"], config: CodebookConfig
    ) -> Float[Tensor, ""]:
        loss = config.router_balance_weight * router_balance_loss(self.encoder.gates(batch))
        if config.orthogonality_weight > 0:
            apart = orthogonality_loss(self.encoder.first_layers()) + _OUTPUT_SHARE * decorrelation_loss(latent)
            loss = loss + config.orthogonality_weight * apart
        return loss


def fit_mpq(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return the quantizer of the best look at all items; the same inputs and seed give the same one.

    The experts begin with disjoint blocks of a random rotation of the whitened vectors: parallel codes that start
    from the same view say much the same.

    Args:
        vectors: of this rank's items.
    """
    check_vectors(vectors)
    shards = shards or Shards()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = MixtureAutoencoder(
            vectors.shape[1],
            config.hidden_dims,
            num_slots=config.num_levels,
            codebook_size=config.codebook_size,
            code_dim=config.code_dim,
        ).to(vectors.device)
    autoencoder.encoder.see_blocks(*rotated_whitening(vectors, seed=seed, shards=shards))
    history = train(autoencoder, vectors, config, seed=seed, shards=shards)
    encoder = autoencoder.encoder.eval().requires_grad_(False)
    return Fitted(Quantizer("mpq", autoencoder.quantizer.words().detach().clone(), encoder), history)


@torch.no_grad()
def expert_load(quantizer: Quantizer, vectors: Float[Tensor, "item width"]) -> Float[Tensor, " slot"]:
    """Return the mean gate of each expert over these items; the load sums to 1.

    Raises:
        UsageError: the quantizer has no router.
    """
    encoder = quantizer.encoder
    if not isinstance(encoder, ExpertEncoder):
        raise UsageError(
            f"a {quantizer.kind} quantizer has no experts to load", next_step="ask an mpq codebook for its expert load"
        )
    gates = torch.cat([encoder.gates(block) for block in torch.split(vectors, _BLOCK)])
    return gates.mean(dim=0)
