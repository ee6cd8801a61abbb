"""Residual k-means: each level clusters what the levels before it left over. The fast default.

Centres settle on a sample, then all vectors pass through in blocks; so neither memory nor time to settle grows with the
catalogue. Axes: `item` rows, `width` of an item vector (and of a codeword), `sample` rows that centres settle on.
"""

import math
import random
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.assign import nearest_codes, squared_distances
from sidrec.quantization.config import CodebookConfig, QuantizerKind
from sidrec.quantization.inputs import check_vectors
from sidrec.quantization.kmeans import lloyd, revive_dead_codes, spread_centres
from sidrec.quantization.prices import balanced_assignment
from sidrec.quantization.quantizer import Fitted, Quantizer
from sidrec.quantization.sharding import Shards

Blocks = Callable[[], Iterator[Float[Tensor, "item width"]]]
"""Gives the vectors, block by block and in one order, as often as it is called."""

# Points a code that settle its centre, and the bytes that such a sample may take.
_POINTS, _BYTES = 256, 24 << 20
# Vectors that are quantized at a time.
_ROWS = 1 << 13
# Points a code that the seeds are drawn from, and how many are tried for each.
_SEED_POINTS, _CANDIDATES = 64, 4
# Iterations on the sample end where no more than this share of it changes its code.
_TOLERANCE = 5e-3
# Of residuals, those below this share of the mean square are no seeds: next to zero, they would be nearest to nearly
# everything where few others are alike.
_SEED_ENERGY = 0.5
# Passes over all vectors after the centres have settled on a sample; each costs more where vectors are streamed.
_PASSES, _STREAMED_PASSES = 12, 3


def fit_residual_kmeans(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return the codebooks of residual k-means; the same vectors and seed give the same ones.

    Over several ranks, each holds its own vectors and every rank ends with the same codebooks.
    """
    return _fit(_InMemory(vectors), config, seed, shards, "residual_kmeans")


def fit_balanced_kmeans(
    vectors: Float[Tensor, "item width"], config: CodebookConfig, *, seed: int, shards: Shards | None = None
) -> Fitted:
    """Return codebooks whose codes have equally many of the vectors they settled on, give or take one.

    Codes of a fitted quantizer are by plain distance as for every kind: they are near balance, not at it.
    """
    return _fit(_InMemory(vectors), config, seed, shards, "balanced_kmeans")


def fit_blocks(blocks: Blocks, config: CodebookConfig, *, seed: int, shards: Shards | None = None) -> Fitted:
    """Return the codebooks of residual k-means over vectors that are never in memory at once.

    Peak memory is a sample of them and a block, whatever their number.

    Args:
        blocks: of this rank's vectors, from a memory map, say.

    Raises:
        UsageError: there are no vectors.
        CheckFailedError: a vector is not finite.
    """
    return _fit(_Streamed(blocks), config, seed, shards, "residual_kmeans")


class _InMemory:
    """Residuals of all vectors, kept."""

    passes = _PASSES

    def __init__(self, vectors: Float[Tensor, "item width"]) -> None:
        check_vectors(vectors)
        self.residual = vectors
        self.count = len(vectors)

    def residuals(self) -> Iterator[Float[Tensor, "item width"]]:
        """Yield what the levels so far left over."""
        yield self.residual

    def subtract(self, book: Float[Tensor, "code width"]) -> None:
        """Take one more level off."""
        self.residual = _subtract(self.residual, book, torch.empty_like(self.residual))


class _Streamed:
    """Residuals of vectors that come by in blocks, made anew at every pass."""

    passes = _STREAMED_PASSES

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.books: list[Tensor] = []
        self.count = 0
        for block in blocks():
            check_vectors(block, first=self.count)
            self.count += len(block)
        if self.count == 0:
            raise UsageError("no block held a vector: there is nothing to fit a codebook on")

    def residuals(self) -> Iterator[Float[Tensor, "item width"]]:
        """Yield what the levels so far left over, in small blocks."""
        for block in self.blocks():
            for part in torch.split(block, _ROWS):
                residual = part
                for book in self.books:
                    residual = _subtract(residual, book, torch.empty_like(residual))
                yield residual

    def subtract(self, book: Float[Tensor, "code width"]) -> None:
        """Take one more level off."""
        self.books.append(book)


def _fit(
    source: _InMemory | _Streamed, config: CodebookConfig, seed: int, shards: Shards | None, kind: QuantizerKind
) -> Fitted:
    shards = shards or Shards()
    size = config.codebook_size
    sample, count = _sample(source, size, seed, shards)
    energy = float(_energies(sample).sum(dtype=torch.float64))
    books: list[Tensor] = []
    history: list[dict[str, float]] = []
    for level in range(config.num_levels):
        generator = torch.Generator(device=sample.device).manual_seed(seed + level)
        centres = spread_centres(_drawn(sample, size, level, generator), size, generator, candidates=_CANDIDATES)
        if kind == "balanced_kmeans":
            centres = _balanced_lloyd(sample, centres, config.kmeans_iterations)
        else:
            centres = lloyd(sample, centres, config.kmeans_iterations, tolerance=_TOLERANCE).centres
        # A balanced level stays as its sample balanced it; means of plain assignment would crowd it again.
        passes = count > len(sample) and kind != "balanced_kmeans"
        if passes:
            for _ in range(source.passes):
                centres = _means(source, centres, shards)
        centres = shards.broadcast(centres)
        books.append(centres)
        _subtract(sample, centres, sample)
        if passes and level + 1 < config.num_levels:
            source.subtract(centres)
        share = float(_energies(sample).sum(dtype=torch.float64)) / max(energy, 1e-12)
        history.append({"level": float(level), "residual_error": share})
    codebooks = torch.stack(books)
    shards.check_equal(codebooks, "the fitted codebook")
    return Fitted(Quantizer(kind, codebooks), history)


def _sample(
    source: _InMemory | _Streamed, size: int, seed: int, shards: Shards
) -> tuple[Float[Tensor, "sample width"], int]:
    """Return a copy of vectors drawn evenly from all ranks, and how many vectors the ranks hold."""
    first = next(iter(source.residuals()))
    count = sum(shards.sizes(source.count, first.device))
    wanted = min(count, _POINTS * size, max(size, _BYTES // (4 * first.shape[1])))
    # A rank draws by its share of the vectors.
    share = math.ceil(wanted * source.count / count)
    rows = torch.tensor(sorted(random.Random(seed).sample(range(source.count), share)), device=first.device)  # noqa: S311
    sample, start = first.new_empty(share, first.shape[1]), 0
    for block in source.residuals():
        low, high = torch.searchsorted(rows, torch.tensor([start, start + len(block)], device=rows.device)).tolist()
        torch.index_select(block, 0, rows[low:high] - start, out=sample[low:high])
        start += len(block)
    return shards.gather(sample), count


def _subtract(
    vectors: Float[Tensor, "vector width"], book: Float[Tensor, "code width"], out: Float[Tensor, "vector width"]
) -> Float[Tensor, "vector width"]:
    """Return, in `out`, what the nearest codewords leave over; beside it no more than a block is in memory."""
    for part, left in zip(torch.split(vectors, _ROWS), torch.split(out, _ROWS), strict=True):
        torch.sub(part, book[nearest_codes(part, book)], out=left)
    return out


def _drawn(
    sample: Float[Tensor, "sample width"], size: int, level: int, generator: torch.Generator
) -> Float[Tensor, "drawn width"]:
    """Return rows of the sample that seeds are drawn from."""
    rows = torch.randperm(len(sample), generator=generator, device=sample.device)
    if level > 0:
        energy = _energies(sample)
        large = rows[energy[rows] >= _SEED_ENERGY * energy.mean()]
        rows = large if len(large) >= size else rows
    return sample[rows[: _SEED_POINTS * size]]


def _energies(sample: Float[Tensor, "sample width"]) -> Float[Tensor, " sample"]:
    """Return squared lengths, without a second sample in memory."""
    lengths: Tensor = torch.linalg.vector_norm(sample, dim=1)
    return lengths.square()


def _means(
    source: _InMemory | _Streamed, centres: Float[Tensor, "code width"], shards: Shards
) -> Float[Tensor, "code width"]:
    """Return the means of all ranks' residuals that are nearest to each centre."""
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=centres.device)
    counts = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    for residuals in source.residuals():
        for part in torch.split(residuals, _ROWS):
            codes = nearest_codes(part, centres)
            sums += torch.zeros_like(centres).index_add_(0, codes, part)
            counts += torch.bincount(codes, minlength=len(centres))
    sums, counts = shards.sum(sums), shards.sum(counts)
    fresh = (sums / counts.clamp(min=1)[:, None]).to(centres.dtype)
    # A centre that no vector came to stays where the sample put it.
    return torch.where((counts > 0)[:, None], fresh, centres)


def _balanced_lloyd(
    vectors: Float[Tensor, "sample width"], centres: Float[Tensor, "code width"], iterations: int
) -> Float[Tensor, "code width"]:
    """Return the centres of Lloyd's iterations in which every code gets equally many vectors, give or take one."""
    count, size = len(vectors), len(centres)
    lower, upper = count // size, -(-count // size)
    prices = None
    before: Int[Tensor, " sample"] | None = None
    for _ in range(iterations):
        costs = squared_distances(vectors, centres)
        codes, prices = balanced_assignment(costs, lower, upper, prices=prices)
        if before is not None and torch.equal(codes, before):
            break
        before = codes
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        counts = torch.bincount(codes, minlength=size)
        means = torch.where((counts > 0)[:, None], sums / counts.clamp(min=1)[:, None], centres)
        centres, _ = revive_dead_codes(means, codes, vectors)
    return centres
