"""One step of a codebook's life: the verb is decided and carried out, and the next catalogue stands.

Axes: `item` rows of a catalogue, `width` of an item vector, `level` codes of a semantic ID.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from sidrec.codebook.append import append
from sidrec.codebook.artefact import Artefact, Codebook
from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.decide import Decision, decide, obstacle
from sidrec.codebook.health_report import span_alarm
from sidrec.codebook.items import MergedItems, merge_items, traffic_of
from sidrec.codebook.refresh import refresh
from sidrec.data.catalog import Catalog, widened
from sidrec.data.graph import item_graph, smooth
from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization.collisions import resolve
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import fit_quantizer
from sidrec.quantization.inputs import check_vectors
from sidrec.quantization.mpq import expert_load


@dataclass(frozen=True, eq=False)
class Sources:
    """What a codebook is made from: items with their content vectors, and baskets of the fit period only."""

    items: pl.DataFrame
    vectors: NDArray[np.float32]  # [item, width], by the frozen embedder
    baskets: pl.DataFrame | None
    lineage: str
    """Digest of the embedder."""
    day: date
    """On which an item that is no longer listed becomes a tombstone."""


@dataclass(frozen=True, eq=False)
class Built:
    """The next generation of a codebook, and what a health report says of it."""

    decision: Decision
    codebook: Codebook
    catalog: Catalog
    quantized: NDArray[np.int32]  # [item, level], before collisions were resolved
    fitted_errors: NDArray[np.float32]
    new_errors: NDArray[np.float32] | None
    notes: dict[str, Any]
    """What the verb itself reports: looks of a fit, edges of the graph, the sentence of a refresh."""


def build(
    parent: Artefact | None,
    sources: Sources,
    config: CodebookConfig,
    lifecycle: LifecycleConfig,
    *,
    seed: int,
    scratch: bool = False,
) -> Built:
    """Return the next codebook and catalogue; without baskets, vectors stay unsmoothed.

    Args:
        scratch: the model will be trained from scratch whatever the verb.

    Raises:
        CheckFailedError: vectors and items are of two catalogues, a vector is not finite, an item stands twice, or a
            forced verb is not possible.
        UsageError: a refresh is asked for without baskets of a codebook that was fitted on smoothed vectors.
    """
    if len(sources.vectors) != len(sources.items):
        raise CheckFailedError(
            f"{len(sources.vectors):,} vectors for {len(sources.items):,} items: they are of two catalogues"
        )
    check_vectors(torch.from_numpy(sources.vectors))
    merged = None if parent is None else merge_items(parent.catalog, sources.items, sources.day)
    # What a new fit will replace is not appended to: it may be full, which is why the recipe asks for another.
    appended = None
    if parent and merged and lifecycle.verb != "fit" and not obstacle(parent, sources.lineage, config):
        appended = append(parent, merged, sources.vectors)
    alarm = None if appended is None else span_alarm(appended.fitted_errors, appended.new_errors, lifecycle)
    decision = decide(parent, merged, lineage=sources.lineage, codebook=config, lifecycle=lifecycle, alarm=alarm)
    if scratch:
        decision = replace(decision, training="scratch")
    if decision.verb == "fit":
        return _fit(decision, sources, config, seed)
    assert parent is not None
    assert merged is not None
    assert appended is not None
    if decision.verb == "refresh":
        return _refresh(decision, parent, merged, sources, config, lifecycle)
    codebook = appended.codebook if decision.verb == "append" else parent.codebook
    notes = {"alarm": alarm}
    return Built(
        decision, codebook, appended.catalog, appended.quantized, appended.fitted_errors, appended.new_errors, notes
    )


def _fit(decision: Decision, sources: Sources, config: CodebookConfig, seed: int) -> Built:
    vectors, graph = _smoothed(sources, config)
    fitted = fit_quantizer(torch.from_numpy(vectors), config, seed=seed)
    quantizer = fitted.quantizer
    latent = quantizer.latent(torch.from_numpy(vectors))
    codes = quantizer.quantize(latent).codes
    errors = quantizer.relative_errors(latent, codes).numpy()
    quantized = codes.numpy().astype(np.int32)
    items = sources.items
    rank = items["popularity"].fill_null(0).to_numpy() if "popularity" in items.columns else np.zeros(len(items))
    resolved = resolve(quantizer, latent, quantized, rank.astype(np.int64), config)
    notes: dict[str, Any] = {"graph": graph, "training": fitted.history, "moved": resolved.moved}
    if quantizer.parallel:
        notes["expert_load"] = expert_load(quantizer, torch.from_numpy(vectors)).tolist()
    own = CodebookConfig.model_validate(config.model_dump(include=set(CodebookConfig.model_fields)))
    codebook = Codebook(own, quantizer, vectors.shape[1], sources.lineage)
    return Built(decision, codebook, Catalog.build(items, resolved.codes), quantized, errors, None, notes)


def _refresh(
    decision: Decision,
    parent: Artefact,
    merged: MergedItems,
    sources: Sources,
    config: CodebookConfig,
    lifecycle: LifecycleConfig,
) -> Built:
    if sources.baskets is None and config.smoothing_steps > 0:
        raise UsageError(
            "this codebook was fitted on vectors smoothed over baskets, and there are none to refresh it by",
            next_step="give --baskets, or append",
        )
    vectors, graph = _smoothed(sources, config)
    refreshed = refresh(parent, merged, vectors, lifecycle)
    if refreshed.churn > lifecycle.churn_budget:
        decision = replace(decision, training="scratch")
    notes = {
        "graph": graph,
        "sentence": refreshed.sentence(lifecycle),
        "wanted_moves": refreshed.wanted_moves,
        "wanted_churn": refreshed.wanted_churn,
        "deferred": refreshed.deferred,
        "residual": refreshed.residual,
    }
    return Built(decision, refreshed.codebook, refreshed.catalog, refreshed.quantized, refreshed.errors, None, notes)


def _smoothed(sources: Sources, config: CodebookConfig) -> tuple[NDArray[np.float32], dict[str, int] | None]:
    """Return the vectors that a fit sees, and the size of the graph that smoothed them."""
    if sources.baskets is None or config.smoothing_steps == 0:
        return sources.vectors, None
    graph = item_graph(
        sources.baskets,
        sources.items["item_id"].to_list(),
        windows=config.windows,
        window=config.window,
        max_neighbours=config.max_neighbours,
    )
    size = {
        "baskets": len(sources.baskets),
        "edges": graph.nnz // 2,
        "isolated_items": int((np.diff(graph.indptr) == 0).sum()),
    }
    return smooth(sources.vectors, graph, alpha=config.smoothing_alpha, steps=config.smoothing_steps), size


def churn(before: Catalog, after: Catalog, training: str) -> dict[str, Any]:
    """Return what published items lose: how many moved, their share of traffic, and the changes by level."""
    row = np.array([after.index_of.get(item, -1) for item in before.item_ids])
    width = max(before.num_codes, after.num_codes)
    old, new = widened(before.codes, width), widened(after.codes[row], width)
    differs = old != new
    moved = differs.any(axis=1) | (row < 0)
    traffic = traffic_of(after.table())[row] * (row >= 0)
    traffic = traffic / max(traffic.sum(), 1e-12)
    return {
        "moved": int(moved.sum()),
        "published": len(before),
        "share": float(traffic[moved].sum()),
        "training": training,
        "changed": [float(share) for share in differs.mean(axis=0)],
    }
