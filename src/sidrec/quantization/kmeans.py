"""K-means that gives the same clusters for the same vectors and seed.

Axes: `vector` rows to cluster, `cluster` centres, `dim` width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from sidrec.quantization.assign import nearest_codes, squared_distances

_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Clusters:
    """Centres, the cluster of each vector, and the sum of squared distances to the own centre."""

    centres: Float[Tensor, "cluster dim"]
    assignment: Int[Tensor, " vector"]
    inertia: float


def kmeans(
    vectors: Float[Tensor, "vector dim"],
    num_clusters: int,
    *,
    seed: int,
    iterations: int = 50,
    restarts: int = 1,
) -> Clusters:
    """Return the best of `restarts` runs of Lloyd's iterations from k-means++ centres.

    With fewer distinct vectors than clusters, the surplus centres repeat vectors.
    """
    generator = torch.Generator(device=vectors.device).manual_seed(seed)
    runs = [lloyd(vectors, spread_centres(vectors, num_clusters, generator), iterations) for _ in range(restarts)]
    return min(runs, key=lambda run: run.inertia)


def lloyd(
    vectors: Float[Tensor, "vector dim"],
    centres: Float[Tensor, "cluster dim"],
    iterations: int,
    *,
    tolerance: float = 0.0,
) -> Clusters:
    """Return the clusters that Lloyd's iterations make of these centres; a cluster that empties moves.

    Args:
        tolerance: iterations end where no more than this share of the vectors changes its cluster.
    """
    assignment = nearest_codes(vectors, centres)
    for _ in range(iterations):
        counts = torch.bincount(assignment, minlength=len(centres)).clamp(min=1).unsqueeze(-1)
        sums = torch.zeros_like(centres).index_add_(0, assignment, vectors)
        # An empty cluster keeps no mean of its own; it moves to the worst served vector instead.
        centres, _ = revive_dead_codes(sums / counts, assignment, vectors)
        moved = nearest_codes(vectors, centres)
        changed = int((moved != assignment).sum())
        assignment = moved
        if changed <= tolerance * len(vectors):
            break
    return Clusters(centres, assignment, _inertia(vectors, centres, assignment))


def revive_dead_codes(
    codebook: Float[Tensor, "code dim"],
    codes: Int[Tensor, " vector"],
    residuals: Float[Tensor, "vector dim"],
) -> tuple[Float[Tensor, "code dim"], int]:
    """Return the codebook with every unused codeword moved onto a badly served vector, and how many moved.

    The vectors farthest from their own codeword are taken, farthest first.
    """
    counts = torch.bincount(codes, minlength=len(codebook))
    dead = (counts == 0).nonzero().squeeze(-1)[: len(residuals)]
    if len(dead) == 0:
        return codebook, 0
    errors = (residuals - codebook[codes]).square().sum(dim=-1)
    farthest = errors.argsort(descending=True, stable=True)[: len(dead)]
    revived = codebook.clone()
    revived[dead] = residuals[farthest]
    return revived, len(dead)


def spread_centres(
    vectors: Float[Tensor, "vector dim"], num_clusters: int, generator: Generator, *, candidates: int = 1
) -> Float[Tensor, "cluster dim"]:
    """Return k-means++ centres: each next one is drawn with probability proportional to its squared distance.

    Args:
        candidates: more than one: that many are drawn for each centre and those are taken that lower the sum of
            squared distances most (greedy k-means++). A round then takes an eighth as many centres as there are, which
            makes few large products of many small ones.
    """
    squares = vectors.square().sum(dim=-1)
    # Squared distance to the nearest centre less |v|², which is the same for every centre.
    slack = torch.full_like(squares, math.inf)
    draws = torch.randint(len(vectors), (1,), generator=generator, device=vectors.device)
    chosen: list[int] = []
    while True:
        chosen += draws.tolist()
        for scores, least in _scored(vectors, vectors[draws], slack):
            torch.minimum(least, scores.amin(dim=1), out=least)
        if len(chosen) == num_clusters:
            return vectors[chosen].clone()
        nearest = (slack + squares).clamp(min=0)
        # With every vector already a centre all weights are zero; any vector then serves.
        weights = nearest if bool(nearest.sum() > 0) else torch.ones_like(nearest)
        taken = 1 if candidates == 1 else min(num_clusters - len(chosen), max(1, len(chosen) // 8))
        draws = torch.multinomial(weights, taken * candidates, replacement=candidates > 1, generator=generator)
        if candidates > 1:
            draws = draws[_most_useful(vectors, slack, vectors[draws], nearest[draws], taken)]


def _most_useful(
    vectors: Float[Tensor, "vector dim"],
    slack: Float[Tensor, " vector"],
    drawn: Float[Tensor, "draw dim"],
    nearest_of_drawn: Float[Tensor, " draw"],
    count: int,
) -> list[int]:
    """Return up to `count` of the draws, those that leave the least squared distance first.

    A draw that one taken before it serves well, at half its distance to the centres there are, is left out: on tight
    groups many draws are of the same one.
    """
    left = torch.zeros(len(drawn), dtype=torch.float64, device=drawn.device)
    for scores, least in _scored(vectors, drawn, slack):
        left += torch.minimum(scores, least[:, None], out=scores).sum(dim=0)
    served = (squared_distances(drawn, drawn) <= nearest_of_drawn[:, None] / 2).cpu()
    closed = torch.zeros(len(drawn), dtype=torch.bool)
    taken: list[int] = []
    for draw in left.argsort(stable=True).tolist():
        if not closed[draw]:
            taken.append(draw)
            closed |= served[:, draw]
        if len(taken) == count:
            break
    return taken


def _scored(
    vectors: Float[Tensor, "vector dim"], centres: Float[Tensor, "cluster dim"], slack: Float[Tensor, " vector"]
) -> Iterator[tuple[Float[Tensor, "row cluster"], Float[Tensor, " row"]]]:
    """Yield squared distances less |v|² block by block, in one piece of memory, with the block's slack."""
    lengths, weights = centres.square().sum(dim=-1), (-2 * centres).T.contiguous()
    scores = vectors.new_empty(min(_BLOCK, len(vectors)), len(centres))
    for part, least in zip(torch.split(vectors, _BLOCK), torch.split(slack, _BLOCK), strict=True):
        yield torch.addmm(lengths, part, weights, out=scores[: len(part)]), least


def _inertia(
    vectors: Float[Tensor, "vector dim"], centres: Float[Tensor, "cluster dim"], assignment: Int[Tensor, " vector"]
) -> float:
    """Return the sum of squared distances to the own centre."""
    total = torch.zeros((), dtype=torch.float64, device=vectors.device)
    for part, own in zip(torch.split(vectors, _BLOCK), torch.split(assignment, _BLOCK), strict=True):
        total += (part - centres[own]).square().sum()
    return float(total)
