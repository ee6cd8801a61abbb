"""Codebooks: fits and assignments beside their peers, memory of a streamed fit, time as the catalogue grows.

Vectors are a seeded Gaussian mixture. Axes: `item` rows, `width` of an item vector, `level` of the quantizer.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks import peers
from benchmarks.measure import Row, bounded, compare, cpu_seconds, report, within
from benchmarks.memory import streamed_peak
from benchmarks.mixture import file_blocks, mixture, write_mixture
from sidrec.errors import CheckFailedError
from sidrec.quantization.assign import nearest_codes, squared_distances
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.epochs import batches, epoch
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.prices import balanced_assignment
from sidrec.quantization.quantizer import Quantizer
from sidrec.quantization.residual_kmeans import fit_blocks, fit_residual_kmeans
from sidrec.quantization.rqvae import autoencoder_of
from sidrec.quantization.sharding import Shards

Fit = Callable[[Tensor, int, int, int], Tensor]

# How much higher our error may be: fits (share of the peer's error), balanced steps (share of the least cost).
_FIT_TOLERANCE, _STEP_TOLERANCE = 0.005, 0.002


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    items: int = 12_000
    width: int = 384
    many: int = 1_000_000
    narrow: int = 64
    levels: int = 3
    codes: int = 256
    iterations: int = 20
    repeats: int = 9
    long_repeats: int = 3
    grown: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    grown_width: int = 16
    judged: bool = True

    def goal(self, goal: float) -> float | None:
        """Return the goal where the sizes are large enough to judge it."""
        return goal if self.judged else None

    @property
    def shape(self) -> str:
        """The codebooks, in words."""
        return f"{self.levels}x{self.codes}, {self.iterations} iterations"


QUICK = Sizes(600, 24, 3000, 8, 2, 16, 8, 2, 2, (500, 1000, 2000), 4, judged=False)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every row, the short ones first."""
    vectors = mixture(sizes.items, sizes.width)
    yield from _balanced_steps(vectors, sizes)
    yield _rqvae_epoch(vectors, sizes)
    yield from _small_fits(vectors, sizes)
    with tempfile.TemporaryDirectory() as folder:
        yield _memory(Path(folder) / "memory.f32", sizes)
        yield _growth(Path(folder) / "growth.f32", sizes)
    yield from _large_fits(mixture(sizes.many, sizes.narrow), sizes)


def _small_fits(vectors: Float[Tensor, "item width"], sizes: Sizes) -> Iterator[Row]:
    what = f"residual k-means {sizes.shape}, {sizes.items:,} x {sizes.width}"
    fits: tuple[tuple[str, Fit, float, int], ...] = (
        ("faiss.Kmeans", peers.faiss_kmeans, 1.0, sizes.repeats),
        ("vector-quantize-pytorch ResidualVQ", peers.residual_vq, 2.0, sizes.repeats),
        ("scikit-learn KMeans, default k-means++", peers.sklearn_kmeans, 4.0, min(5, sizes.repeats)),
    )
    for peer, fit, goal, repeats in fits:
        # Seeds of faiss and ResidualVQ are plain draws: after five iterations from ours the error is below theirs.
        own = sizes if fit is peers.sklearn_kmeans else replace(sizes, iterations=min(5, sizes.iterations))
        yield compare(
            f"{what} vs {peer}; ours {own.iterations} iterations at most",
            partial(_ours, vectors, own),
            partial(fit, vectors, sizes.levels, sizes.codes, sizes.iterations),
            check=lambda ours, theirs: _equal_error(vectors, ours, theirs),
            goal=sizes.goal(goal),
            repeats=repeats,
        )


def _large_fits(vectors: Float[Tensor, "item width"], sizes: Sizes) -> Iterator[Row]:
    yield compare(
        f"residual k-means {sizes.shape}, {sizes.many:,} x {sizes.narrow} vs faiss.Kmeans, all points",
        lambda: _ours(vectors, sizes),
        lambda: peers.faiss_kmeans(vectors, sizes.levels, sizes.codes, sizes.iterations),
        check=lambda ours, theirs: _equal_error(vectors, ours, theirs),
        goal=sizes.goal(1.3),
        repeats=sizes.long_repeats,
    )
    # faiss takes 256 points a code unless told otherwise; ours gets as many, drawn here.
    points = 256 * sizes.codes
    drawn = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:points]]
    yield compare(
        f"k-means 1x{sizes.codes}, {sizes.iterations} iterations, {len(drawn):,} of {sizes.many:,} x {sizes.narrow} "
        "vs faiss.Kmeans at its default sample",
        lambda: fit_residual_kmeans(drawn, _config(sizes, levels=1), seed=0).quantizer.codebooks,
        lambda: peers.faiss_kmeans(vectors, 1, sizes.codes, sizes.iterations, all_points=False),
        check=lambda ours, theirs: _equal_error(vectors, ours, theirs),
        goal=None,
        repeats=sizes.long_repeats,
    )


def _balanced_steps(vectors: Float[Tensor, "item width"], sizes: Sizes) -> Iterator[Row]:
    lower, upper = sizes.items // sizes.codes, -(-sizes.items // sizes.codes)
    earlier, later = (kmeans(vectors, sizes.codes, seed=0, iterations=count).centres for count in (4, 5))
    costs = squared_distances(vectors, later)
    what = f"{sizes.items:,} x {sizes.width}, {sizes.codes} codes of {lower} or {upper}"

    def check(ours: Int[Tensor, " item"], exact: Int[Tensor, " item"]) -> str:
        taken = torch.bincount(ours, minlength=sizes.codes)
        if int(taken.min()) < lower or int(taken.max()) > upper:
            raise CheckFailedError(f"codes are taken {int(taken.min())} to {int(taken.max())} times")
        ours_cost, least = (float(costs.gather(1, codes[:, None]).mean()) for codes in (ours, exact))
        return within(ours_cost, least, "mean cost", tolerance=_STEP_TOLERANCE)

    yield compare(
        f"balanced step, {what} vs ortools min-cost flow",
        lambda: balanced_assignment(squared_distances(vectors, later), lower, upper)[0],
        lambda: peers.cheapest_balanced(squared_distances(vectors, later), lower, upper),
        check=check,
        goal=sizes.goal(8),
        repeats=sizes.repeats,
    )
    _, prices = balanced_assignment(squared_distances(vectors, earlier), lower, upper)
    step = compare(
        "",
        lambda: nearest_codes(vectors, later),
        lambda: balanced_assignment(squared_distances(vectors, later), lower, upper, prices=prices)[0],
        check=lambda plain, ours: check(ours, ours),
        goal=None,
        repeats=sizes.repeats,
    )
    assert step.ratio is not None
    yield bounded(
        f"balanced step at the last step's prices as a multiple of an unbalanced step, {what}",
        step.ratio,
        goal=sizes.goal(3),
        unit="x",
        notes=f"unbalanced {step.ours:.4f} s, balanced {step.peer:.4f} s; {sizes.repeats} repeats",
        spread=step.spread,
    )


def _rqvae_epoch(vectors: Float[Tensor, "item width"], sizes: Sizes) -> Row:
    """Both start from the same weights and take the same batches, so the first epoch has to end alike."""
    config = CodebookConfig.model_validate(
        {
            "quantizer": "rqvae",
            "num_levels": sizes.levels,
            "codebook_size": sizes.codes,
            "hidden_dims": (512, 256, 128),
            "code_dim": 32,
            "batch_size": 1024,
            "learning_rate": 1e-3,
            "uniformity_weight": 0,
            "balance_strength": 0,
        }
    )
    torch.manual_seed(0)
    ours = autoencoder_of(config, sizes.width)
    with torch.no_grad():
        ours.quantizer.initialise(ours.encoder(vectors), seed=0, iterations=5)
    plain = peers.PlainRQVAE(sizes.width, config.hidden_dims, sizes.levels, sizes.codes, config.code_dim)
    plain.encoder.load_state_dict(ours.encoder.state_dict())
    plain.decoder.load_state_dict(ours.decoder.state_dict())
    for book, words in zip(plain.codebooks, ours.quantizer.words(), strict=True):
        book.data.copy_(words)
    own_optimizer, plain_optimizer = (
        torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        for model in (ours, plain)
    )
    own_order, plain_order = (torch.Generator().manual_seed(0) for _ in range(2))

    head = vectors[:1024]

    def own_epoch() -> float:
        epoch(ours, own_optimizer, batches(vectors, config.batch_size, len(vectors), own_order), config, Shards())
        with torch.no_grad():
            return float(ours.loss(head, config)[0])

    def plain_epoch() -> float:
        plain.epoch(vectors, plain_optimizer, config.batch_size, config.commitment_weight, plain_order)
        with torch.no_grad():
            return float(plain.loss(head, config.commitment_weight))

    return compare(
        f"RQ-VAE epoch, {sizes.items:,} x {sizes.width}, 512-256-128-32, {sizes.levels}x{sizes.codes}, batch 1024 "
        "vs a plain PyTorch RQ-VAE",
        own_epoch,
        plain_epoch,
        check=lambda own, other: within(own, other, "loss after one epoch", tolerance=_FIT_TOLERANCE),
        goal=sizes.goal(1.0),
        repeats=sizes.repeats,
    )


def _memory(path: Path, sizes: Sizes) -> Row:
    write_mixture(path, sizes.many, sizes.narrow)
    peak = streamed_peak(path, sizes.many, sizes.narrow) / 2**20
    path.unlink()
    return bounded(
        f"peak memory of a streamed residual k-means 3x256, {sizes.many:,} x {sizes.narrow}, beyond the imports",
        peak,
        goal=sizes.goal(64),
        unit="MiB",
        notes=f"the vectors themselves are {sizes.many * sizes.narrow * 4 / 2**20:,.0f} MiB and stay in their file",
    )


def _growth(path: Path, sizes: Sizes) -> Row:
    write_mixture(path, sizes.grown[-1], sizes.grown_width)
    seconds = []
    for count in sizes.grown:
        blocks = file_blocks(path, count, sizes.grown_width)
        seconds.append(cpu_seconds(partial(fit_blocks, blocks, _config(sizes), seed=0))[0])
    path.unlink()
    ends = math.log(seconds[-1] / seconds[0]) / math.log(sizes.grown[-1] / sizes.grown[0])
    times = ", ".join(f"{count:,}: {took:.2f} s" for count, took in zip(sizes.grown, seconds, strict=True))
    last = math.log(seconds[-1] / seconds[-2]) / math.log(sizes.grown[-1] / sizes.grown[-2])
    return bounded(
        f"exponent of time in items, streamed residual k-means {sizes.shape}, {sizes.grown[0]:,} to "
        f"{sizes.grown[-1]:,} x {sizes.grown_width}",
        max(ends, last),
        goal=sizes.goal(1.05),
        unit="exponent",
        notes=f"{times}; between the ends {ends:.2f}, of the last step {last:.2f}, the larger counts",
    )


def _ours(vectors: Float[Tensor, "item width"], sizes: Sizes) -> Float[Tensor, "level code width"]:
    return fit_residual_kmeans(vectors, _config(sizes), seed=0).quantizer.codebooks


def _config(sizes: Sizes, *, levels: int | None = None) -> CodebookConfig:
    return CodebookConfig.model_validate(
        {
            "quantizer": "residual_kmeans",
            "num_levels": levels or sizes.levels,
            "codebook_size": sizes.codes,
            "kmeans_iterations": sizes.iterations,
        }
    )


def _equal_error(vectors: Tensor, ours: Tensor, theirs: Tensor) -> str:
    errors = []
    for books in (ours, theirs):
        quantizer = Quantizer("residual_kmeans", books)
        lost = [float(quantizer.errors(part, quantizer.encode(part)).sum()) for part in torch.split(vectors, 65_536)]
        errors.append(sum(lost) / len(vectors))
    return within(errors[0], errors[1], "error", tolerance=_FIT_TOLERANCE)
