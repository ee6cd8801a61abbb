"""Every way to fit a quantizer, behind one call.

Axes: `item` rows (of this rank), `width` of an item vector.
"""

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sidrec.quantization.autoencoder import perceptron
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.experts import ExpertEncoder
from sidrec.quantization.mpq import fit_mpq
from sidrec.quantization.quantizer import Fitted
from sidrec.quantization.residual_kmeans import fit_balanced_kmeans, fit_residual_kmeans
from sidrec.quantization.rqvae import fit_rqvae
from sidrec.quantization.sharding import Shards


def fit_quantizer(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return the quantizer of these vectors by the recipe's kind; the same inputs and seed give the same one.

    It runs on one thread: batches are so small that a second thread costs more than it brings, and on a busy machine
    many times more. Fewer different vectors than codes are no error: some codes then have no item.

    Raises:
        UsageError: there are no vectors.
        CheckFailedError: a vector is not finite, or ranks end with different codewords.
    """
    with one_thread():
        match config.quantizer:
            case "residual_kmeans":
                return fit_residual_kmeans(vectors, config, seed=seed, shards=shards)
            case "balanced_kmeans":
                return fit_balanced_kmeans(vectors, config, seed=seed, shards=shards)
            case "rqvae":
                return fit_rqvae(vectors, config, seed=seed, shards=shards)
            case "mpq":
                return fit_mpq(vectors, config, seed=seed, shards=shards)


def encoder_of(config: CodebookConfig, width: int) -> nn.Module | None:
    """Return an untrained encoder of the recipe's kind, to load weights into; None where vectors encode themselves."""
    match config.quantizer:
        case "rqvae":
            return perceptron((width, *config.hidden_dims, config.code_dim))
        case "mpq":
            return ExpertEncoder(width, config.hidden_dims, config.num_levels, config.code_dim)
        case "residual_kmeans" | "balanced_kmeans":
            return None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside, on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
