"""Residual k-means settles on a sample, passes over everything, and is the same over blocks and ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization import residual_kmeans
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.quantizer import Fitted, Quantizer
from sidrec.quantization.residual_kmeans import fit_balanced_kmeans, fit_blocks, fit_residual_kmeans
from sidrec.quantization.sharding import Shards, checksum
from tests.sidrec.quantization.shard_world import on_ranks

CONFIG = CodebookConfig(quantizer="residual_kmeans", num_levels=2, codebook_size=16, kmeans_iterations=15)


def mixture(count: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(40, width, generator=generator)
    return centres[torch.randint(40, (count,), generator=generator)] + torch.randn(count, width, generator=generator)


def error(quantizer: Quantizer, vectors: torch.Tensor) -> float:
    return float(quantizer.errors(vectors, quantizer.quantize(vectors).codes).mean())


def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let centres settle on 20 points a code, so that a few thousand vectors are more than a sample."""
    monkeypatch.setattr(residual_kmeans, "_POINTS", 20)


def test_every_level_lowers_the_error() -> None:
    """The history has one row a level, and its last error is that of the quantizer on the vectors themselves."""
    vectors = mixture(800)
    fitted = fit_residual_kmeans(vectors, CONFIG, seed=0)
    shares = [row["residual_error"] for row in fitted.history]

    assert shares == sorted(shares, reverse=True)
    energy = float(vectors.square().sum(dim=1).mean())
    assert shares[-1] == pytest.approx(error(fitted.quantizer, vectors) / energy, rel=1e-4)


def test_passes_over_everything_beat_the_sample_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On vectors beyond the sample the passes lower the error that the sample left."""
    small_sample(monkeypatch)
    vectors = mixture(6000)
    whole = fit_residual_kmeans(vectors, CONFIG, seed=0)
    monkeypatch.setattr(residual_kmeans._InMemory, "passes", 0)
    sample = fit_residual_kmeans(vectors, CONFIG, seed=0)

    assert error(whole.quantizer, vectors) < error(sample.quantizer, vectors)


def test_streamed_blocks_are_as_good_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size give the same codebooks; with as many passes they are those of memory, to rounding."""
    small_sample(monkeypatch)
    vectors = mixture(5000)
    monkeypatch.setattr(residual_kmeans._Streamed, "passes", residual_kmeans._InMemory.passes)
    memory = fit_residual_kmeans(vectors, CONFIG, seed=0)
    one, other = (fit_blocks(lambda size=size: iter(vectors.split(size)), CONFIG, seed=0) for size in (700, 1999))

    torch.testing.assert_close(one.quantizer.codebooks, other.quantizer.codebooks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.quantizer.codebooks, memory.quantizer.codebooks, atol=1e-3, rtol=1e-3)


def test_a_memory_map_is_enough(tmp_path: Path) -> None:
    """Vectors of a file are fitted block by block without being read whole."""
    vectors = mixture(1500)
    np.save(tmp_path / "vectors.npy", vectors.numpy())
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    starts = range(0, len(mapped), 400)
    fitted = fit_blocks(
        lambda: (torch.from_numpy(mapped[start : start + 400].copy()) for start in starts), CONFIG, seed=0
    )

    assert error(fitted.quantizer, vectors) == pytest.approx(
        error(fit_residual_kmeans(vectors, CONFIG, seed=0).quantizer, vectors), rel=0.02
    )


def test_balanced_codes_are_used_alike() -> None:
    """The codes of the balanced fit are more evenly used than those of the plain one, by plain distance too."""
    vectors = mixture(1600)
    sizes = {}
    for name, fit in (("plain", fit_residual_kmeans), ("balanced", fit_balanced_kmeans)):
        codes = fit(vectors, CONFIG, seed=0).quantizer.encode(vectors)[:, 0]
        sizes[name] = torch.bincount(codes, minlength=16).float()

    assert sizes["balanced"].std() < 0.7 * sizes["plain"].std()


def fit_shard(group: dist.ProcessGroup) -> dict[str, Any]:
    """Fit on every other one of the vectors, on the rank that they are of."""
    residual_kmeans._POINTS = 20
    shards = Shards(group)
    fitted: Fitted = fit_residual_kmeans(mixture(5001)[shards.rank :: 2], CONFIG, seed=0, shards=shards)
    return {"codebooks": fitted.quantizer.codebooks, "checksum": checksum(fitted.quantizer.codebooks)}


def test_two_ranks_end_with_one_codebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of unequal size: equal bytes on both ranks, and an error within 3 % of the one-process fit's."""
    small_sample(monkeypatch)
    one, other = on_ranks(__file__, "fit_shard", tmp_path)
    vectors = mixture(5001)
    alone = error(fit_residual_kmeans(vectors, CONFIG, seed=0).quantizer, vectors)

    assert one["checksum"] == other["checksum"]
    assert error(Quantizer("residual_kmeans", one["codebooks"]), vectors) == pytest.approx(alone, rel=0.03)


def test_bad_vectors_are_refused() -> None:
    """None, and one that is not finite: the row is named, in memory and in a stream alike."""
    broken = mixture(900)
    broken[777, 2] = float("nan")

    with pytest.raises(UsageError, match="0 item vectors"):
        fit_residual_kmeans(torch.zeros(0, 4), CONFIG, seed=0)
    with pytest.raises(CheckFailedError, match="1 item vectors are not finite, row 777 first"):
        fit_residual_kmeans(broken, CONFIG, seed=0)
    with pytest.raises(CheckFailedError, match="1 item vectors are not finite, row 777 first"):
        fit_blocks(lambda: iter(broken.split(100)), CONFIG, seed=0)
    with pytest.raises(UsageError, match="no block"):
        fit_blocks(lambda: iter(()), CONFIG, seed=0)


def test_no_code_of_a_noisy_residual_takes_nearly_everything() -> None:
    """Residuals next to zero, of vectors that a level served exactly, are no seeds: as one they win every vector."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 200, generator=generator)
    vectors = torch.cat([noise, 40 * torch.eye(200)[:60]])
    config = CONFIG.model_copy(update={"codebook_size": 64, "num_levels": 3})
    for seed in range(3):
        codes = fit_residual_kmeans(vectors, config, seed=seed).quantizer.encode(vectors)
        shares = [float(torch.bincount(codes[:, level]).max()) / len(vectors) for level in (1, 2)]

        assert max(shares) < 0.5
