"""The CoBa RQ-VAE of S²GR: collaborative vectors in, balanced semantic IDs out.

Axes: `item` rows, `width` of an item vector, `level` coarsest first, `code` entries of a codebook, `cluster` of
codewords, `dim` width of a codeword.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec import files
from sidrec.errors import BundleError
from sidrec.progress import track
from sidrec.quantization.assign import nearest_codes
from sidrec.quantization.autoencoder import QuantizedAutoencoder
from sidrec.quantization.collisions import Resolved, resolve_collisions
from sidrec.quantization.health import sid_health
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.losses import quantization_loss, reconstruction_loss, uniformity_loss
from sidrec.systems.s2gr.config import S2GRCodebookConfig

FORMAT = 1

_WEIGHTS = "codebook.safetensors"
_HEADER = "codebook.json"


@dataclass(frozen=True, eq=False)
class S2GRCodebook:
    """A frozen tokenizer: the autoencoder with its codewords, and the clusters of codewords of every level."""

    config: S2GRCodebookConfig
    autoencoder: QuantizedAutoencoder
    cluster_of: Int[Tensor, "level code"]
    cluster_centres: Float[Tensor, "level cluster dim"]
    lineage: str
    """Digest of the text embedder whose vectors this codebook was fitted on; other vectors mean nothing to it."""

    @property
    def codewords(self) -> Float[Tensor, "level code dim"]:
        """The codewords of all levels."""
        return self.autoencoder.quantizer.codebooks.detach()

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the codes [item, level] of item vectors by plain distance; a new item has its text vector alone."""
        return _encode(self.autoencoder, torch.from_numpy(vectors))

    def save(self, folder: Path) -> None:
        """Write `codebook.safetensors` and `codebook.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            **{name: value.contiguous() for name, value in self.autoencoder.state_dict().items()},
            "cluster_of": self.cluster_of,
            "cluster_centres": self.cluster_centres,
        }
        safetensors.torch.save_file(tensors, folder / _WEIGHTS)
        header = {
            "format": FORMAT,
            "kind": "s2gr",
            "config": self.config.model_dump(mode="json"),
            "width": self.autoencoder.encoder[0].in_features,
            "lineage": self.lineage,
            "shapes": {name: list(value.shape) for name, value in tensors.items()},
        }
        files.write_json_atomic(folder / _HEADER, header)

    @classmethod
    def load(cls, folder: Path) -> "S2GRCodebook":
        """Return the codebook that `save` wrote.

        Raises:
            BundleError: a file is missing, of another format, or the two do not belong together.
        """
        try:
            header: dict[str, Any] = files.read_json(folder / _HEADER)
            tensors = safetensors.torch.load_file(folder / _WEIGHTS)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise BundleError(f"the codebook cannot be read: {error}", evidence=folder) from error
        if (header.get("format"), header.get("kind")) != (FORMAT, "s2gr"):
            seen = f"format {header.get('format')!r}, kind {header.get('kind')!r}"
            raise BundleError(f"the codebook has {seen}; expected format {FORMAT}, kind 's2gr'", evidence=folder)
        if header["shapes"] != {name: list(value.shape) for name, value in tensors.items()}:
            raise BundleError(f"{_HEADER} and {_WEIGHTS} are of two codebooks: their shapes differ", evidence=folder)
        config = S2GRCodebookConfig.model_validate(header["config"])
        cluster_of, centres = tensors.pop("cluster_of"), tensors.pop("cluster_centres")
        autoencoder = _autoencoder(config, header["width"])
        autoencoder.load_state_dict(tensors)
        return cls(config, autoencoder, cluster_of, centres, header["lineage"])


@dataclass(frozen=True, eq=False)
class Fit:
    """A codebook, every item's codes as quantized and as resolved, and how training went."""

    codebook: S2GRCodebook
    quantized: NDArray[np.int32]  # [item, level]
    resolved: Resolved
    residual: NDArray[np.float32]  # [item], squared length of what no level could explain, over the latent's
    history: list[dict[str, float]]


def fit_codebook(
    aligned: NDArray[np.float32],
    rank: NDArray[np.int64],
    config: S2GRCodebookConfig,
    *,
    seed: int,
    lineage: str,
) -> Fit:
    """Return the codebook of the smoothed item vectors; the same inputs and seed give the same one.

    It runs on one thread: batches are so small that a second thread costs more than it brings, and on a busy machine
    many times more.

    Args:
        aligned: [item, width], content smoothed over the co-occurrence graph.
        rank: [item], usually popularity: who keeps its code when items collide.
    """
    with _one_thread():
        return _fit(torch.from_numpy(aligned), rank, config, seed, lineage)


def _fit(
    vectors: Float[Tensor, "item width"],
    rank: NDArray[np.int64],
    config: S2GRCodebookConfig,
    seed: int,
    lineage: str,
) -> Fit:
    autoencoder, history = _train(vectors, config, seed)
    with torch.no_grad():
        latent = autoencoder.encoder(vectors)
        quantized = autoencoder.quantizer(latent)
        lost = (latent - quantized.total).square().sum(dim=-1) / latent.square().sum(dim=-1).clamp(min=1e-12)
    codes = quantized.codes.numpy().astype(np.int32)
    resolved = resolve_collisions(
        codes,
        quantized.residuals[:, -1].numpy(),
        autoencoder.quantizer.codebooks[-1].detach().numpy(),
        rank,
        epsilon=config.sinkhorn_epsilon,
        iterations=config.sinkhorn_iterations,
    )
    cluster_of, centres = cluster_codewords(autoencoder.quantizer.codebooks.detach(), resolved.codes, config, seed=seed)
    codebook = S2GRCodebook(config, autoencoder, cluster_of, centres, lineage)
    return Fit(codebook, codes, resolved, lost.numpy(), history)


def cluster_codewords(
    codewords: Float[Tensor, "level code dim"],
    codes: NDArray[np.int32],
    config: S2GRCodebookConfig,
    *,
    seed: int,
) -> tuple[Int[Tensor, "level code"], Float[Tensor, "level cluster dim"]]:
    """Return the cluster of every codeword and the cluster centres, by K-means within each level.

    Codes that no item has take no part in placing the centres; they belong to the nearest one.

    Source: S²GR, cluster supervision tables g_l and c_{l,k}.

    Args:
        codes: [item, level], the items' codes.
    """
    cluster_of, centres = [], []
    for level, words in enumerate(codewords):
        used = words[np.unique(codes[:, level])]
        clusters = kmeans(
            used,
            config.num_clusters,
            seed=seed + level,
            iterations=config.kmeans_iterations,
            restarts=config.cluster_restarts,
        )
        centres.append(clusters.centres)
        cluster_of.append(nearest_codes(words, clusters.centres))
    return torch.stack(cluster_of).to(torch.int32), torch.stack(centres)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    vectors: Float[Tensor, "item width"],
    config: S2GRCodebookConfig,
    seed: int,
) -> tuple[QuantizedAutoencoder, list[dict[str, float]]]:
    """Return the autoencoder of the best look at all items, and the training history."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = _autoencoder(config, vectors.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    for _ in range(config.warmup_epochs):
        for batch in _batches(vectors, config.batch_size, generator):
            _step(optimizer, reconstruction_loss(autoencoder.decoder(autoencoder.encoder(batch)), batch))
    with torch.no_grad():
        autoencoder.quantizer.initialise(autoencoder.encoder(vectors), seed=seed, iterations=config.kmeans_iterations)
    history: list[dict[str, float]] = []
    best, best_state, since_best = math.inf, _state(autoencoder), 0
    for epoch in track(range(1, config.epochs + 1), "codebook epochs", total=config.epochs):
        for batch in _batches(vectors, config.batch_size, generator):
            _step(optimizer, _loss(autoencoder, batch, config))
        if epoch % config.check_every and epoch != config.epochs:
            continue
        row = _look(autoencoder, vectors, epoch)
        history.append(row)
        # Two shares of the same kind: of the unit-length vectors lost, and of the items not told apart. The collision
        # rate alone would choose an autoencoder that has not learnt anything yet: noise separates items well.
        score = row["reconstruction"] + row["collision_rate"]
        if score < best:
            best, best_state, since_best = score, _state(autoencoder), 0
        else:
            since_best += 1
        if since_best >= config.patience:
            break
        with torch.no_grad():
            autoencoder.quantizer.revive(autoencoder.encoder(vectors))
    autoencoder.load_state_dict(best_state)
    return autoencoder.eval(), history


def _loss(
    autoencoder: QuantizedAutoencoder, batch: Float[Tensor, "item width"], config: S2GRCodebookConfig
) -> Float[Tensor, ""]:
    """Return L_recon + L_rq + λ_u L_uni of one batch, assigned by usage-adjusted distance, and count the usage."""
    rebuilt, quantized = autoencoder(batch, strength=config.balance_strength, bound=config.balance_bound)
    autoencoder.quantizer.count_usage(quantized.codes, config.usage_decay)
    loss = reconstruction_loss(rebuilt, batch) + quantization_loss(quantized, config.commitment_weight)
    if config.uniformity_weight > 0:
        uniformity = uniformity_loss(autoencoder.quantizer.codebooks, config.uniformity_margin)
        loss = loss + config.uniformity_weight * uniformity
    return loss


@torch.no_grad()
def _look(autoencoder: QuantizedAutoencoder, vectors: Float[Tensor, "item width"], epoch: int) -> dict[str, float]:
    """Return the figures of one look, codes by plain distance as on export."""
    rebuilt, quantized = autoencoder(vectors)
    codes = quantized.codes.numpy()
    size = autoencoder.quantizer.codebooks.shape[1]
    return {
        "epoch": float(epoch),
        "reconstruction": float(reconstruction_loss(rebuilt, vectors)),
        "collision_rate": float(sid_health(codes)["collision_rate"]),
        "min_utilisation": min(len(np.unique(codes[:, level])) / size for level in range(codes.shape[1])),
    }


@torch.no_grad()
def _encode(autoencoder: QuantizedAutoencoder, vectors: Float[Tensor, "item width"]) -> NDArray[np.int32]:
    codes: Tensor = autoencoder.quantizer(autoencoder.encoder(vectors)).codes
    return codes.numpy().astype(np.int32)


def _autoencoder(config: S2GRCodebookConfig, width: int) -> QuantizedAutoencoder:
    return QuantizedAutoencoder(
        width,
        config.hidden_dims,
        num_levels=config.num_levels,
        codebook_size=config.codebook_size,
        code_dim=config.code_dim,
    )


def _batches(vectors: Float[Tensor, "item width"], size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return torch.split(vectors[torch.randperm(len(vectors), generator=generator)], size)


def _step(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _state(autoencoder: QuantizedAutoencoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in autoencoder.state_dict().items()}
