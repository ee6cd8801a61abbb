"""An RQ-VAE with the terms of CoBa: repelled codewords, usage-adjusted assignment, dead codes revived.

With the three off it is a plain RQ-VAE. Axes: `item` rows of this rank, `width` of an item vector.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.quantization.autoencoder import QuantizedAutoencoder
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.epochs import train
from sidrec.quantization.inputs import check_vectors
from sidrec.quantization.quantizer import Fitted, Quantizer
from sidrec.quantization.sharding import Shards


def fit_rqvae(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return the quantizer of the best look at all items; the same inputs and seed give the same one.

    Source: S²GR's CoBa RQ-VAE (arXiv 2601.18664), whose widths, optimiser and stopping rule are not public.

    Args:
        vectors: of this rank's items.
    """
    check_vectors(vectors)
    shards = shards or Shards()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = autoencoder_of(config, vectors.shape[1]).to(vectors.device)
    history = train(autoencoder, vectors, config, seed=seed, shards=shards)
    encoder = autoencoder.encoder.eval().requires_grad_(False)
    return Fitted(Quantizer("rqvae", autoencoder.quantizer.words().detach().clone(), encoder), history)


def autoencoder_of(config: CodebookConfig, width: int) -> QuantizedAutoencoder:
    """Return an untrained autoencoder of these settings."""
    return QuantizedAutoencoder(
        width,
        config.hidden_dims,
        num_levels=config.num_levels,
        codebook_size=config.codebook_size,
        code_dim=config.code_dim,
    )
