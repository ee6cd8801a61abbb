"""K-means that gives the same clusters for the same vectors and seed.

Axes: `vector` rows to cluster, `cluster` centres, `dim` width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from sidrec.quantization.assign import nearest_codes, squared_distances


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


def lloyd(vectors: Float[Tensor, "vector dim"], centres: Float[Tensor, "cluster dim"], iterations: int) -> Clusters:
    """Return the clusters that Lloyd's iterations make of these centres; a cluster that empties moves."""
    assignment = nearest_codes(vectors, centres)
    for _ in range(iterations):
        counts = torch.bincount(assignment, minlength=len(centres)).clamp(min=1).unsqueeze(-1)
        sums = torch.zeros_like(centres).index_add_(0, assignment, vectors)
        # An empty cluster keeps no mean of its own; it moves to the worst served vector instead.
        centres, _ = revive_dead_codes(sums / counts, assignment, vectors)
        moved = nearest_codes(vectors, centres)
        if torch.equal(moved, assignment):
            break
        assignment = moved
    inertia = float((vectors - centres[assignment]).square().sum())
    return Clusters(centres, assignment, inertia)


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
        candidates: drawn for each centre; the one that lowers the sum of squared distances most is taken (greedy
            k-means++).
    """
    first = int(torch.randint(len(vectors), (1,), generator=generator, device=vectors.device))
    chosen = [first]
    nearest = squared_distances(vectors, vectors[first : first + 1]).squeeze(-1)
    for _ in range(1, num_clusters):
        # With every vector already a centre all weights are zero; any vector then serves.
        weights = nearest if bool(nearest.sum() > 0) else torch.ones_like(nearest)
        draws = torch.multinomial(weights, candidates, replacement=candidates > 1, generator=generator)
        distances = torch.minimum(nearest[:, None], squared_distances(vectors, vectors[draws]))
        best = 0 if candidates == 1 else int(distances.sum(dim=0).argmin())
        chosen.append(int(draws[best]))
        nearest = distances[:, best]
    return vectors[chosen].clone()
