"""Popular items for everybody: the smallest system, and what a cold user is answered with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.systems.base import MODEL, WEIGHTS, FitInputs, Query, Ranking, RankingModel, link_unaligned

GLOBAL_SHARE = 0.001


def popularity_log_probs(catalog: Catalog) -> NDArray[np.float32]:
    """Return log-probabilities [item] that fall with recent popularity; ties go by popularity of the whole fit.

    An item that was never in a fit basket keeps a probability above zero.
    """
    overall = catalog.popularity + 1e-3
    score = catalog.recent_popularity + GLOBAL_SHARE * overall / overall.max()
    log_probs: NDArray[np.float32] = np.log(score / score.sum()).astype(np.float32)
    return log_probs


def ranked(log_probs: NDArray[np.float32], allowed: NDArray[np.bool_], k: int) -> Ranking:
    """Return the k best allowed items; equal scores go to the lower item index."""
    candidates = np.flatnonzero(allowed)
    order = np.argsort(-log_probs[candidates], kind="stable")[:k]
    best = candidates[order]
    return Ranking(best, log_probs[best], len(best))


class PopularityModel:
    """Ranks every user's items by one list of log-probabilities."""

    def __init__(self, log_probs: NDArray[np.float32]) -> None:
        self.log_probs = log_probs

    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the most popular items that are neither blocked nor, if asked so, in the history."""
        rankings = []
        for query in queries:
            allowed = ~blocked
            if query.exclude_seen:
                allowed[query.items] = False
            rankings.append(ranked(self.log_probs, allowed, query.k))
        return rankings


@dataclass(frozen=True)
class PopularitySystem:
    """Counts, and nothing to align."""

    parts: ClassVar[tuple[str, ...]] = (WEIGHTS, MODEL)

    def fit(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write the catalogue's popularity as a model."""
        return _write(inputs.catalog, folder)

    def carry(self, source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
        """Write the new catalogue's popularity: counting again costs nothing."""
        return _write(catalog, folder)

    def align(self, model: Path, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Copy the model: counting has nothing to align."""
        return link_unaligned(model, folder, "popularity has no alignment stage")

    def open(self, folder: Path, catalog: Catalog) -> PopularityModel:
        """Return the model in `folder`."""
        return PopularityModel(load_file(folder / WEIGHTS)["log_probs"])

    def probe(self, model: RankingModel, queries: Sequence[Query], targets: Sequence[int]) -> dict[str, Any]:
        """Return nothing: there are no steps on the way to an item."""
        return {}


def _write(catalog: Catalog, folder: Path) -> dict[str, Any]:
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    log_probs = popularity_log_probs(catalog)
    save_file({"log_probs": log_probs}, model / WEIGHTS)
    files.write_json_atomic(model / MODEL, {"kind": "popularity", "items": len(log_probs)})
    return {"rows": len(log_probs)}
