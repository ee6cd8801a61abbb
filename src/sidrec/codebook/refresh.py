"""Codewords follow the catalogue, and an item changes its semantic ID only where that pays and the budget allows.

Axes: `item` rows of the next catalogue, published ones first; `level` codes; `dim` width of a codeword.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.codebook.append import widened
from sidrec.codebook.artefact import Artefact, Codebook
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.items import MergedItems, traffic_of
from sidrec.data.catalog import Catalog
from sidrec.quantization.collisions import resolve
from sidrec.quantization.quantizer import Quantizer
from sidrec.quantization.refit import refit


@dataclass(frozen=True, eq=False)
class Refreshed:
    """The next generation, what moved, and what the budget held back."""

    codebook: Codebook
    catalog: Catalog
    quantized: NDArray[np.int32]  # [item, level], codes by plain distance
    moved: NDArray[np.bool_]  # [published item]
    churn: float
    """Share of the published items' traffic whose semantic ID moved."""
    wanted_moves: int
    wanted_churn: float
    residual: dict[str, float]
    """Mean share of a latent vector's squared length unexplained: `append`, `refresh`, `all_moves`."""

    @property
    def deferred(self) -> int:
        """Moves that would have paid and were not made: for the budget, or because no free semantic ID was a gain."""
        return self.wanted_moves - int(self.moved.sum())

    def sentence(self, config: LifecycleConfig) -> str:
        """Return what a release owner needs to know."""
        moved = int(self.moved.sum())
        said = (
            f"{moved:,} of {len(self.moved):,} published items moved, {self.churn:.1%} of the traffic "
            f"(budget {config.churn_budget:.1%}); residual error {self.residual['refresh']:.4f}, "
            f"{self.residual['append']:.4f} without the refresh"
        )
        if self.churn > config.churn_budget:
            return said + ": more than the budget, so the model must be trained from scratch."
        if self.wanted_churn > config.churn_budget:
            said += (
                f". The budget does not hold all of it: {self.wanted_moves:,} moves pay, {self.wanted_churn:.1%} of "
                f"the traffic; {self.deferred:,} are deferred, with all of them the error would be "
                f"{self.residual['all_moves']:.4f}"
            )
        return said + "."


def refresh(parent: Artefact, merged: MergedItems, vectors: NDArray[np.float32], config: LifecycleConfig) -> Refreshed:
    """Return the next generation in the parent's latent space.

    Codewords are fitted again from the old ones and matched to them. A published item keeps its semantic ID unless
    another one lowers its error by more than `epsilon` of its squared length; then it keeps as long a prefix as it can
    at that price. Moves of most gain a view come first until the churn budget is spent. A vacated semantic ID stays
    empty for this generation, and so do tombstones': histories still spell them.

    Args:
        vectors: smoothed vectors [row of the new items table, width] of the parent's frozen embedder.
    """
    old, published = parent.codebook.quantizer, merged.published
    sold = np.flatnonzero(merged.sold)
    latent = old.latent(torch.from_numpy(vectors[merged.source[sold]]))
    fresh = refit(old, latent, iterations=config.refit_iterations)
    energy = fresh.energy(latent).clamp(min=1e-12)
    traffic = traffic_of(merged.table)[sold]
    is_old = torch.from_numpy(sold < published)
    before = torch.from_numpy(parent.catalog.codes[sold[sold < published], : old.num_levels].astype(np.int64))

    wanted = fresh.quantize(latent).codes
    quantized = wanted.clone()
    wanted[is_old] = cheapest_moves(fresh, latent[is_old], before, config.epsilon)
    gain = (fresh.errors(latent[is_old], before) - fresh.errors(latent[is_old], wanted[is_old])).numpy()
    moves = (wanted[is_old] != before).any(dim=1).numpy()
    old_traffic = traffic[is_old.numpy()]
    old_traffic = old_traffic / max(old_traffic.sum(), 1e-12)
    budget = config.churn_budget if config.over_budget == "defer" else 1.0
    accepted = within_budget(moves, gain, old_traffic, budget)

    candidates = np.flatnonzero(np.concatenate([accepted, np.ones(len(sold) - len(accepted), dtype=bool)]))
    policy = parent.codebook.config.model_copy(update={"collision_policy": "nearest_free"})
    codes = np.concatenate([parent.catalog.codes, np.zeros((len(merged.new), parent.catalog.num_codes), np.int32)])
    if len(candidates):
        resolved = resolve(
            fresh,
            latent[candidates],
            wanted[candidates].numpy().astype(np.int32),
            np.rint(traffic[candidates] * 1e9).astype(np.int64),
            policy,
            taken=parent.catalog.codes,
        )
        new_codes = widened(resolved.codes, parent.catalog.num_codes)
        # Where the free semantic ID that was left is no gain, the item keeps its own.
        kept = np.flatnonzero(candidates < len(accepted))
        error = fresh.errors(latent[candidates[kept]], torch.from_numpy(new_codes[kept, : fresh.num_levels]).long())
        own = fresh.errors(latent[candidates[kept]], before[candidates[kept]])
        worse = (own - error <= config.epsilon * energy[candidates[kept]]).numpy()
        taking = np.setdiff1d(np.arange(len(candidates)), kept[worse])
        codes[sold[candidates[taking]]] = new_codes[taking]

    catalog = Catalog.build(merged.table, codes)
    moved = (codes[:published] != parent.catalog.codes).any(axis=1)
    final = torch.from_numpy(codes[sold, : fresh.num_levels].astype(np.int64))
    share = {
        "refresh": fresh.errors(latent, final) / energy,
        "append": old.errors(latent, torch.where(is_old[:, None], _padded(before, is_old), old.quantize(latent).codes))
        / energy,
        "all_moves": fresh.errors(latent, wanted) / energy,
    }
    weights = np.zeros(published)
    weights[sold[sold < published]] = old_traffic
    book = parent.codebook
    every = np.concatenate([parent.catalog.codes[:, : fresh.num_levels], codes[published:, : fresh.num_levels]])
    every[sold] = quantized.numpy().astype(np.int32)
    return Refreshed(
        codebook=replace(book, quantizer=fresh, generation=book.generation + 1, parent=book.digest, appended=0),
        catalog=catalog,
        quantized=every,
        moved=moved,
        churn=float(weights[moved].sum()),
        wanted_moves=int(moves.sum()),
        wanted_churn=float(old_traffic[moves].sum()),
        residual={name: float(value.mean()) for name, value in share.items()},
    )


def cheapest_moves(
    quantizer: Quantizer,
    latent: Float[Tensor, "item *parts dim"],
    codes: Int[Tensor, "item level"],
    epsilon: float,
) -> Int[Tensor, "item level"]:
    """Return the codes nearest to the old ones whose error is within `epsilon` of the best found.

    Old codes come first, then ever shorter kept prefixes, the rest quantized again; of parallel slots those are kept
    whose change would gain least.
    """
    levels = quantizer.num_levels
    tried = [codes]
    for kept in range(levels - 1, -1, -1):
        tried.append(_requantized(quantizer, latent, codes, kept))
    errors = torch.stack([quantizer.errors(latent, candidate) for candidate in tried])
    allowed = errors <= errors.amin(dim=0) + epsilon * quantizer.energy(latent)
    first = allowed.int().argmax(dim=0)
    return torch.stack(tried)[first, torch.arange(len(codes))]


def within_budget(
    moves: NDArray[np.bool_], gain: NDArray[np.floating[Any]], traffic: NDArray[np.float64], budget: float
) -> NDArray[np.bool_]:
    """Return the moves that are made: most gain a unit of traffic first, none that would exceed the budget.

    Args:
        traffic: [item], shares summing to 1; an item that nobody sees costs nothing.
    """
    order = np.argsort(-gain / np.maximum(traffic, 1e-12), kind="stable")
    accepted = np.zeros(len(moves), dtype=bool)
    spent = 0.0
    for item in order[moves[order]].tolist():
        if spent + traffic[item] <= budget:
            accepted[item] = True
            spent += float(traffic[item])
    return accepted


def _requantized(
    quantizer: Quantizer, latent: Float[Tensor, "item *parts dim"], codes: Int[Tensor, "item level"], kept: int
) -> Int[Tensor, "item level"]:
    """Return the codes with `kept` old ones: the first levels, or the slots whose change would gain least."""
    best = quantizer.quantize(latent).codes
    if quantizer.parallel:
        words = quantizer.codebooks
        slots = range(quantizer.num_levels)
        own = torch.stack([(latent[:, s] - words[s][codes[:, s]]).square().sum(-1) for s in slots], dim=1)
        other = torch.stack([(latent[:, s] - words[s][best[:, s]]).square().sum(-1) for s in slots], dim=1)
        rank = (own - other).argsort(dim=1, stable=True).argsort(dim=1)
        return torch.where(rank < kept, codes, best)
    residual, result = latent, codes.clone()
    for level, book in enumerate(quantizer.codebooks):
        if level >= kept:
            result[:, level] = Quantizer(quantizer.kind, book[None]).quantize(residual).codes[:, 0]
        residual = residual - book[result[:, level]]
    return result


def _padded(codes: Int[Tensor, "old level"], is_old: Tensor) -> Int[Tensor, "item level"]:
    """Return the published items' codes in the rows of all items."""
    whole = codes.new_zeros((len(is_old), codes.shape[1]))
    whole[is_old] = codes
    return whole
