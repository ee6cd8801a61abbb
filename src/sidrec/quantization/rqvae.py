"""An RQ-VAE with the terms of CoBa: repelled codewords, usage-adjusted assignment, dead codes revived.

With the three off it is a plain RQ-VAE. Axes: `item` rows of this rank, `width` of an item vector.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.progress import track
from sidrec.quantization.autoencoder import QuantizedAutoencoder
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.health import sid_health
from sidrec.quantization.losses import quantization_loss, reconstruction_loss, uniformity_loss
from sidrec.quantization.quantizer import Fitted, Quantizer
from sidrec.quantization.sharding import Shards

# Latent vectors that place and revive codewords, of all ranks together.
_SAMPLE = 262_144


def fit_rqvae(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return the quantizer of the best look at all items; the same inputs and seed give the same one.

    Over several ranks each trains on its own items, gradients and usage are shared, and every rank ends with the same
    codewords.

    Source: S²GR's CoBa RQ-VAE (arXiv 2601.18664), whose widths, optimiser and stopping rule are not public.

    Args:
        vectors: of this rank's items.
    """
    shards = shards or Shards()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = autoencoder_of(config, vectors.shape[1]).to(vectors.device)
    generator = torch.Generator().manual_seed(seed + shards.rank)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    largest = max(shards.sizes(len(vectors), vectors.device))
    share = math.ceil(config.batch_size / shards.count)
    for _ in range(config.warmup_epochs):
        for batch in _batches(vectors, share, largest, generator):
            loss = reconstruction_loss(autoencoder.decoder(autoencoder.encoder(batch)), batch)
            _step(optimizer, loss, shards)
    sample = _latent_sample(autoencoder, vectors, shards)
    autoencoder.quantizer.initialise(sample, seed=seed, iterations=config.kmeans_iterations)
    history: list[dict[str, float]] = []
    best, best_row, best_state, since_best = math.inf, {}, _state(autoencoder), 0
    for number in track(range(1, config.epochs + 1), "codebook epochs", total=config.epochs):
        epoch(autoencoder, optimizer, _batches(vectors, share, largest, generator), config, shards)
        if number % config.check_every and number != config.epochs:
            continue
        row = _look(autoencoder, vectors, number, shards)
        history.append(row)
        # Two shares of the same kind: of the unit-length vectors lost, and of the items not told apart. The collision
        # rate alone would choose an autoencoder that has not learnt anything yet: noise separates items well.
        score = row["reconstruction"] + row["collision_rate"]
        if score < best:
            best, best_row, best_state, since_best = score, row, _state(autoencoder), 0
        else:
            since_best += 1
        if since_best >= config.patience:
            break
        if config.revive:
            with torch.no_grad():
                autoencoder.quantizer.revive(_latent_sample(autoencoder, vectors, shards))
    autoencoder.load_state_dict(best_state)
    codebooks = autoencoder.quantizer.codebooks.detach().clone()
    shards.check_equal(codebooks, "the fitted codebook")
    encoder = autoencoder.encoder.eval().requires_grad_(False)
    if history[-1] is not best_row and best_row:
        history.append(best_row)
    return Fitted(Quantizer("rqvae", codebooks, encoder), history)


def epoch(
    autoencoder: QuantizedAutoencoder,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Float[Tensor, "item width"]],
    config: CodebookConfig,
    shards: Shards,
) -> None:
    """Take one optimizer step a batch; nothing here waits for a device."""
    for batch in batches:
        rebuilt, quantized = autoencoder(batch, strength=config.balance_strength, bound=config.balance_bound)
        autoencoder.quantizer.count_usage(shards.gather(quantized.codes), config.usage_decay)
        loss = reconstruction_loss(rebuilt, batch) + quantization_loss(quantized, config.commitment_weight)
        if config.uniformity_weight > 0:
            uniformity = uniformity_loss(autoencoder.quantizer.codebooks, config.uniformity_margin)
            loss = loss + config.uniformity_weight * uniformity
        _step(optimizer, loss, shards)


def autoencoder_of(config: CodebookConfig, width: int) -> QuantizedAutoencoder:
    """Return an untrained autoencoder of these settings."""
    return QuantizedAutoencoder(
        width,
        config.hidden_dims,
        num_levels=config.num_levels,
        codebook_size=config.codebook_size,
        code_dim=config.code_dim,
    )


@torch.no_grad()
def _look(
    autoencoder: QuantizedAutoencoder, vectors: Float[Tensor, "item width"], number: int, shards: Shards
) -> dict[str, float]:
    """Return the figures of one look at the items of all ranks, codes by plain distance as on export."""
    rebuilt, quantized = autoencoder(vectors)
    codes = shards.gather(quantized.codes).cpu().numpy()
    size = autoencoder.quantizer.codebooks.shape[1]
    if shards.count == 1:
        reconstruction = float(reconstruction_loss(rebuilt, vectors))
    else:
        lost = (rebuilt - vectors).square().sum(dim=-1).sum(dtype=torch.float64)
        reconstruction = float(shards.sum(lost)) / max(1, len(codes))
    return {
        "epoch": float(number),
        "reconstruction": reconstruction,
        "collision_rate": float(sid_health(codes)["collision_rate"]),
        "min_utilisation": min(len(np.unique(codes[:, level])) / size for level in range(codes.shape[1])),
    }


@torch.no_grad()
def _latent_sample(
    autoencoder: QuantizedAutoencoder, vectors: Float[Tensor, "item width"], shards: Shards
) -> Float[Tensor, "sample dim"]:
    latent: Tensor = autoencoder.encoder(vectors[: math.ceil(_SAMPLE / shards.count)])
    return shards.gather(latent)


def _batches(
    vectors: Float[Tensor, "item width"], size: int, rows: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "item width"]]:
    """Return the rows of one epoch in a fresh order; a shard of fewer than `rows` goes round again."""
    order = torch.randperm(len(vectors), generator=generator)
    if len(order) < rows:
        order = order.repeat(math.ceil(rows / len(order)))[:rows]
    return iter(torch.split(vectors[order.to(vectors.device)], size))


def _step(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], shards: Shards) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if shards.count > 1:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        mean = shards.sum(torch.cat([gradient.flatten() for gradient in gradients])) / shards.count
        for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
    optimizer.step()


def _state(autoencoder: QuantizedAutoencoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in autoencoder.state_dict().items()}
