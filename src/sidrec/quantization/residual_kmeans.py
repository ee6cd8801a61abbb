"""Residual k-means: each level clusters what the levels before it left over. The fast default.

Centres settle on a sample, then all vectors pass through in blocks; so neither memory nor time to settle grows with the
catalogue. Axes: `item` rows, `width` of an item vector (and of a codeword), `sample` rows that centres settle on.
"""

import math
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
_POINTS, _BYTES = 256, 48 << 20
# Vectors that are quantized at a time.
_ROWS = 1 << 14
# Points a code that the seeds are drawn from, and how many are tried for each.
_SEED_POINTS, _CANDIDATES = 16, 4
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
        self.residual = self.residual - book[nearest_codes(self.residual, book)]


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
                    residual = residual - book[nearest_codes(residual, book)]
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
    energy = float(sample.square().sum(dtype=torch.float64))
    books: list[Tensor] = []
    history: list[dict[str, float]] = []
    for level in range(config.num_levels):
        generator = torch.Generator(device=sample.device).manual_seed(seed + level)
        drawn = _drawn(sample, _SEED_POINTS * size, generator)
        centres = spread_centres(drawn, size, generator, candidates=_CANDIDATES)
        if kind == "balanced_kmeans":
            centres = _balanced_lloyd(sample, centres, config.kmeans_iterations)
        else:
            centres = lloyd(sample, centres, config.kmeans_iterations).centres
        # A balanced level stays as its sample balanced it; means of plain assignment would crowd it again.
        if count > len(sample) and kind != "balanced_kmeans":
            for _ in range(source.passes):
                centres = _means(source, centres, shards)
        centres = shards.broadcast(centres)
        books.append(centres)
        sample = sample - centres[nearest_codes(sample, centres)]
        if level + 1 < config.num_levels:
            source.subtract(centres)
        share = float(sample.square().sum(dtype=torch.float64)) / max(energy, 1e-12)
        history.append({"level": float(level), "residual_error": share})
    codebooks = torch.stack(books)
    shards.check_equal(codebooks, "the fitted codebook")
    return Fitted(Quantizer(kind, codebooks), history)


def _sample(
    source: _InMemory | _Streamed, size: int, seed: int, shards: Shards
) -> tuple[Float[Tensor, "sample width"], int]:
    """Return vectors drawn evenly from all ranks, and how many vectors the ranks hold."""
    first = next(iter(source.residuals()))
    count = sum(shards.sizes(source.count, first.device))
    wanted = min(count, _POINTS * size, max(size, _BYTES // (4 * first.shape[1])))
    if wanted == count and source.count == len(first):
        return shards.gather(first), count
    # A rank draws by its share of the vectors.
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(source.count, generator=generator)[: math.ceil(wanted * source.count / count)]
    rows = rows.sort().values.to(first.device)
    parts, start = [], 0
    for block in source.residuals():
        here = (rows >= start) & (rows < start + len(block))
        parts.append(block[rows[here] - start])
        start += len(block)
    return shards.gather(torch.cat(parts)), count


def _drawn(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(vectors) <= count:
        return vectors
    return vectors[torch.randperm(len(vectors), generator=generator, device=vectors.device)[:count]]


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
