"""What one would use instead: residual k-means of three libraries, exact balanced assignment, a plain RQ-VAE.

Axes: `item` rows, `width` of an item vector, `level` of the quantizer, `code` entries of a codebook, `dim` of one.
"""

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from ortools.graph.python import min_cost_flow
from sklearn.cluster import KMeans
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

# Costs become whole numbers for the flow; a thousandth of a squared distance is below every figure that is compared.
_COST_SCALE = 1000


def faiss_kmeans(
    vectors: Float[Tensor, "item width"], levels: int, size: int, iterations: int, *, all_points: bool = True
) -> Float[Tensor, "level code width"]:
    """Return faiss.Kmeans codebooks, a level on what the one before left over."""
    residual = vectors.numpy()
    books = []
    for level in range(levels):
        points = {"max_points_per_centroid": len(vectors)} if all_points else {}
        kmeans = faiss.Kmeans(vectors.shape[1], size, niter=iterations, seed=level + 1, **points)
        kmeans.train(residual)
        centroids = np.array(kmeans.centroids, dtype=np.float32)
        books.append(torch.from_numpy(centroids))
        if level + 1 < levels:
            _, codes = kmeans.index.search(residual, 1)
            residual = residual - centroids[codes[:, 0]]
    return torch.stack(books)


def sklearn_kmeans(
    vectors: Float[Tensor, "item width"], levels: int, size: int, iterations: int
) -> Float[Tensor, "level code width"]:
    """Return scikit-learn's codebooks at its defaults, greedy k-means++ among them, but for the iterations."""
    residual = vectors.numpy()
    books = []
    for level in range(levels):
        fitted = KMeans(size, max_iter=iterations, random_state=level).fit(residual)
        books.append(torch.from_numpy(fitted.cluster_centers_.copy()))
        residual = residual - fitted.cluster_centers_[fitted.labels_]
    return torch.stack(books)


def residual_vq(
    vectors: Float[Tensor, "item width"], levels: int, size: int, iterations: int
) -> Float[Tensor, "level code width"]:
    """Return the codebooks that vector-quantize-pytorch places by k-means on its first batch, here all vectors."""
    torch.manual_seed(0)
    quantizer = ResidualVQ(
        dim=vectors.shape[1], num_quantizers=levels, codebook_size=size, kmeans_init=True, kmeans_iters=iterations
    )
    with torch.no_grad():
        quantizer(vectors[None])
    codebooks: Tensor = quantizer.codebooks
    return codebooks.detach()


def cheapest_balanced(costs: Float[Tensor, "item code"], lower: int, upper: int) -> Int[Tensor, " item"]:
    """Return the codes of least total cost with every code taken between `lower` and `upper` times: min-cost flow."""
    items, codes = costs.shape
    flow = min_cost_flow.SimpleMinCostFlow()
    item, code = np.repeat(np.arange(items), codes), np.tile(np.arange(codes), items)
    whole = (costs.double() * _COST_SCALE).round().long().numpy().ravel()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(item, items + code, np.ones_like(item), whole)
    every, sink, over = items + np.arange(codes), items + codes, items + codes + 1
    for target, capacity in ((sink, lower), (over, upper - lower)):
        flow.add_arcs_with_capacity_and_unit_cost(
            every, np.full(codes, target), np.full(codes, capacity), np.zeros(codes, dtype=np.int64)
        )
    # What a code takes beyond the lower bound goes this way, which is as wide as what is left.
    flow.add_arc_with_capacity_and_unit_cost(over, sink, items - codes * lower, 0)
    flow.set_nodes_supplies(np.append(np.arange(items), sink), np.append(np.ones(items, dtype=np.int64), -items))
    status = flow.solve()
    assert status == flow.OPTIMAL, status
    taken = np.asarray(flow.flows(arcs)).reshape(items, codes)
    return torch.from_numpy(taken.argmax(axis=1))


class PlainRQVAE(nn.Module):
    """An RQ-VAE as textbooks have it: every distance, an argmin, two losses a level, straight-through."""

    def __init__(self, width: int, hidden_dims: tuple[int, ...], levels: int, size: int, dim: int) -> None:
        super().__init__()
        self.encoder = _perceptron((width, *hidden_dims, dim))
        self.codebooks = nn.ParameterList([nn.Parameter(torch.randn(size, dim)) for _ in range(levels)])
        self.decoder = _perceptron((dim, *reversed(hidden_dims), width))

    def loss(self, vectors: Float[Tensor, "item width"], commitment_weight: float) -> Float[Tensor, ""]:
        """Return L_recon + L_rq."""
        latent = self.encoder(vectors)
        residual, total = latent, torch.zeros_like(latent)
        losses: list[Tensor] = []
        for codebook in self.codebooks:
            distances = residual.square().sum(1, keepdim=True) - 2 * residual @ codebook.T + codebook.square().sum(1)
            word = codebook[distances.argmin(dim=1)]
            losses.append((residual.detach() - word).square().sum(1).mean())
            losses.append(commitment_weight * (residual - word.detach()).square().sum(1).mean())
            residual = residual - word.detach()
            total = total + word
        rebuilt = self.decoder(latent + (total - latent).detach())
        losses.append((rebuilt - vectors).square().sum(1).mean())
        return torch.stack(losses).sum()

    def epoch(
        self,
        vectors: Float[Tensor, "item width"],
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        commitment_weight: float,
        generator: torch.Generator,
    ) -> None:
        """Take one optimizer step a batch of a fresh order."""
        for rows in torch.split(torch.randperm(len(vectors), generator=generator), batch_size):
            loss = self.loss(vectors[rows], commitment_weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(len(widths) - 1):
        layers += [nn.Linear(widths[index], widths[index + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
