"""Epochs of a quantized autoencoder, with a look at all items every few of them; the best look is kept.

Axes: `item` rows of this rank, `width` of an item vector.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.progress import track
from sidrec.quantization.autoencoder import Autoencoder
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.health import sid_health
from sidrec.quantization.sharding import Shards

# Latent vectors that place and revive codewords, of all ranks together.
_SAMPLE = 262_144

# Items looked at at a time: memory does not grow with the catalogue.
_BLOCK = 65_536


def train(
    autoencoder: Autoencoder,
    vectors: Float[Tensor, "item width"],
    config: CodebookConfig,
    *,
    seed: int,
    shards: Shards,
) -> list[dict[str, float]]:
    """Train in place up to the state of the best look, and return the looks; the last row is of the state kept.

    Over several ranks each trains on its own items, gradients and usage are shared, and every rank ends with the same
    weights.
    """
    generator = torch.Generator().manual_seed(seed + shards.rank)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    largest = max(shards.sizes(len(vectors), vectors.device))
    share = math.ceil(config.batch_size / shards.count)
    for _ in range(config.warmup_epochs):
        for batch in batches(vectors, share, largest, generator):
            _step(optimizer, autoencoder.warmup_loss(batch, config), shards)
    sample = _latent_sample(autoencoder, vectors, shards)
    autoencoder.quantizer.initialise(sample, seed=seed, iterations=config.kmeans_iterations)
    history: list[dict[str, float]] = []
    best, best_row, best_state, since_best = math.inf, {}, _state(autoencoder), 0
    for number in track(range(1, config.epochs + 1), "codebook epochs", total=config.epochs):
        epoch(autoencoder, optimizer, batches(vectors, share, largest, generator), config, shards)
        if number % config.check_every and number != config.epochs:
            continue
        if config.revive:
            # Before the look: the state that it finds best is kept, and has no dead codes.
            autoencoder.quantizer.revive(_latent_sample(autoencoder, vectors, shards))
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
    autoencoder.load_state_dict(best_state)
    shards.check_equal(torch.cat([value.flatten() for value in best_state.values()]), "the trained codebook")
    if history[-1] is not best_row and best_row:
        history.append(best_row)
    return history


def epoch(
    autoencoder: Autoencoder,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Float[Tensor, "item width"]],
    config: CodebookConfig,
    shards: Shards,
) -> None:
    """Take one optimizer step a batch; nothing here waits for a device."""
    for batch in batches:
        loss, quantized = autoencoder.loss(batch, config)
        autoencoder.quantizer.count_usage(quantized.codes, config.usage_decay, shards)
        _step(optimizer, loss, shards)


def batches(
    vectors: Float[Tensor, "item width"], size: int, rows: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "item width"]]:
    """Return the vectors of one epoch in a fresh order; a shard of fewer than `rows` goes round again."""
    order = torch.randperm(len(vectors), generator=generator)
    if len(order) < rows:
        order = order.repeat(math.ceil(rows / len(order)))[:rows]
    return iter(torch.split(vectors[order.to(vectors.device)], size))


@torch.no_grad()
def _look(
    autoencoder: Autoencoder, vectors: Float[Tensor, "item width"], number: int, shards: Shards
) -> dict[str, float]:
    """Return the figures of one look at the items of all ranks, codes by plain distance as on export."""
    lost, codes = [], []
    for block in torch.split(vectors, _BLOCK):
        rebuilt, quantized = autoencoder(block)
        lost.append((rebuilt - block).square().sum(dim=-1))
        codes.append(quantized.codes)
    every = shards.gather(torch.cat(codes)).cpu().numpy()
    size = autoencoder.quantizer.codebooks.shape[1]
    return {
        "epoch": float(number),
        "reconstruction": float(shards.gather(torch.cat(lost)).mean()),
        "collision_rate": float(sid_health(every)["collision_rate"]),
        "min_utilisation": min(len(np.unique(every[:, level])) / size for level in range(every.shape[1])),
    }


@torch.no_grad()
def _latent_sample(
    autoencoder: Autoencoder, vectors: Float[Tensor, "item width"], shards: Shards
) -> Float[Tensor, "sample *parts dim"]:
    """Return latent vectors of all ranks, the same on each: every one, or evenly spaced ones if they are many."""
    wanted = math.ceil(_SAMPLE / shards.count)
    if len(vectors) > wanted:
        vectors = vectors[torch.linspace(0, len(vectors) - 1, wanted, dtype=torch.float64).long().to(vectors.device)]
    latent: Tensor = autoencoder.encoder(vectors)
    return shards.gather(latent)


def _step(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], shards: Shards) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if shards.count > 1:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        mean = shards.sum(torch.cat([gradient.flatten() for gradient in gradients])) / shards.count
        for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
    optimizer.step()


def _state(autoencoder: Autoencoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in autoencoder.state_dict().items()}
