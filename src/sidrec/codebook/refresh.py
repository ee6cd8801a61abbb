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

from sidrec.codebook.artefact import Artefact, Codebook
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.items import MergedItems, traffic_of
from sidrec.data.catalog import Catalog, widened
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
    errors: NDArray[np.float32]  # [sold item], as a share of the latent vector's squared length
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
    codes = parent.catalog.codes[sold[sold < published], : old.num_levels]
    now = _Sold(sold, latent, traffic_of(merged.table)[sold], torch.from_numpy(codes.astype(np.int64)))

    quantized = fresh.quantize(latent).codes
    wanted = torch.cat([cheapest_moves(fresh, now.old_latent, now.before, config.epsilon), quantized[now.count :]])
    moves = (wanted[: now.count] != now.before).any(dim=1).numpy()
    gain = fresh.errors(now.old_latent, now.before) - fresh.errors(now.old_latent, wanted[: now.count])
    budget = config.churn_budget if config.over_budget == "defer" else 1.0
    accepted = within_budget(moves, gain.numpy(), now.old_traffic, budget)
    final = _final_codes(parent, merged, fresh, now, wanted, accepted, config.epsilon)

    moved = (final[:published] != parent.catalog.codes).any(axis=1)
    appended = torch.cat([now.before, old.quantize(latent[now.count :]).codes])
    published_codes = torch.from_numpy(final[sold, : old.num_levels].astype(np.int64))
    errors = {
        "append": old.relative_errors(latent, appended),
        "refresh": fresh.relative_errors(latent, published_codes),
        "all_moves": fresh.relative_errors(latent, wanted),
    }
    every = final[:, : old.num_levels].copy()
    every[sold] = quantized.numpy().astype(np.int32)
    book = parent.codebook
    return Refreshed(
        codebook=replace(book, quantizer=fresh, generation=book.generation + 1, parent=book.digest, appended=0),
        catalog=Catalog.build(merged.table, final),
        quantized=every,
        moved=moved,
        churn=float(now.old_traffic[moved[sold[: now.count]]].sum()),
        wanted_moves=int(moves.sum()),
        wanted_churn=float(now.old_traffic[moves].sum()),
        errors=errors["refresh"].numpy(),
        residual={name: float(value.mean()) for name, value in errors.items()},
    )


@dataclass(frozen=True, eq=False)
class _Sold:
    """The items that are sold now, published ones first."""

    rows: NDArray[np.int64]  # [sold], in the next catalogue
    latent: Float[Tensor, "sold *parts dim"]
    traffic: NDArray[np.float64]  # [sold]
    before: Int[Tensor, "old level"]

    @property
    def count(self) -> int:
        """How many of them are published."""
        return len(self.before)

    @property
    def old_latent(self) -> Float[Tensor, "old *parts dim"]:
        """Latent vectors of the published ones."""
        return self.latent[: self.count]

    @property
    def old_traffic(self) -> NDArray[np.float64]:
        """Shares of the published ones' traffic, summing to 1."""
        own = self.traffic[: self.count]
        shares: NDArray[np.float64] = own / max(float(own.sum()), 1e-12)
        return shares


def _final_codes(
    parent: Artefact,
    merged: MergedItems,
    fresh: Quantizer,
    now: _Sold,
    wanted: Int[Tensor, "sold level"],
    accepted: NDArray[np.bool_],
    epsilon: float,
) -> NDArray[np.int32]:
    """Return the next catalogue's codes [item, level]: accepted moves and new items take what is free."""
    width, levels = parent.catalog.num_codes, fresh.num_levels
    codes = np.concatenate([parent.catalog.codes, np.zeros((len(merged.new), width), np.int32)])
    new = np.ones(len(now.rows) - now.count, dtype=np.bool_)
    moving = np.flatnonzero(np.concatenate([accepted, new]))
    if not len(moving):
        return codes
    resolved = resolve(
        fresh,
        now.latent[moving],
        wanted[moving].numpy().astype(np.int32),
        np.rint(now.traffic[moving] * 1e9).astype(np.int64),
        parent.codebook.config,
        taken=parent.catalog.codes,
    )
    taken = widened(resolved.codes, width)
    # Where the free semantic ID that was left is no gain, a published item keeps its own.
    own = moving[moving < now.count]
    latent = now.latent[own]
    offered = torch.from_numpy(taken[: len(own), :levels].astype(np.int64))
    gain = fresh.errors(latent, now.before[own]) - fresh.errors(latent, offered)
    pays = (gain > epsilon * fresh.energy(latent)).numpy()
    takes = np.concatenate([pays, np.ones(len(moving) - len(own), dtype=np.bool_)])
    codes[now.rows[moving[takes]]] = taken[takes]
    return codes


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
