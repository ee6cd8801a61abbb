"""Fit the codebook on item vectors and fit-period baskets and give every item its semantic ID."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

from components.train_codebook.gates import codebook_gates, identity_gate
from sidrec import files
from sidrec.data.catalog import Catalog, disambiguate
from sidrec.data.graph import item_graph, smooth
from sidrec.errors import CheckFailedError
from sidrec.evaluation.gates import GateResult
from sidrec.quantization.health import codebook_health, sid_health
from sidrec.recipe import Recipe, S2GRRecipe
from sidrec.systems.s2gr.codebook import fit_codebook

SECTIONS = ("kind", "seed", "as_of", "gate_days", "codebook", "gates")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/codebook`: weights, embedder, `catalogue.parquet` and `health.json` with the codebook gates."""
    target = folder / "codebook"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(inputs["embedder"], target / "embedder")
    items = pl.read_parquet(inputs["items"])
    if isinstance(recipe, S2GRRecipe):
        return _fit(recipe, inputs, items, target)
    return _number(items, target)


def _fit(recipe: S2GRRecipe, inputs: Mapping[str, Path], items: pl.DataFrame, target: Path) -> dict[str, Any]:
    """Write the S²GR codebook; baskets of the gate window are not looked at."""
    config = recipe.codebook
    vectors = safetensors.numpy.load_file(inputs["vectors"])["vectors"]
    if len(vectors) != len(items):
        raise CheckFailedError(
            f"{len(vectors):,} vectors for {len(items):,} items: they are of two catalogues", evidence=inputs["vectors"]
        )
    baskets = pl.read_parquet(inputs["baskets"]).filter(pl.col("day") < recipe.gate_start)
    graph = item_graph(
        baskets,
        items["item_id"].to_list(),
        windows=config.windows,
        window=config.window,
        max_neighbours=config.max_neighbours,
    )
    aligned = smooth(vectors, graph, alpha=config.smoothing_alpha, steps=config.smoothing_steps)
    popularity = items["popularity"].to_numpy().astype(np.int64)
    fit = fit_codebook(aligned, popularity, config, seed=recipe.seed, lineage=files.sha256_tree(target / "embedder"))
    fit.codebook.save(target)
    catalog = Catalog.build(items, disambiguate(fit.resolved.codes, popularity))
    catalog.write(target / "catalogue.parquet")

    quantized = codebook_health(fit.quantized, config.codebook_size)
    gates = [*codebook_gates(quantized, recipe.gates), identity_gate(sid_health(catalog.codes))]
    health = {
        **quantized,
        "resolved": {
            **codebook_health(fit.resolved.codes, config.codebook_size),
            "moved": fit.resolved.moved,
            "disambiguated": int((catalog.codes[:, config.num_levels :] >= 0).sum()),
        },
        "residual": _spread(fit.residual),
        "content_only": _content_only(fit.codebook.encode(vectors), fit.quantized),
        "graph": {
            "baskets": len(baskets),
            "edges": graph.nnz // 2,
            "isolated_items": int((np.diff(graph.indptr) == 0).sum()),
        },
        "training": fit.history,
    }
    _write_health(target, "s2gr", health, gates)
    return {
        "rows": len(catalog),
        "codes": catalog.num_codes,
        "min_utilisation": gates[0].observed,
        "collision_rate": quantized["collision_rate"],
        "moved": fit.resolved.moved,
        "epochs": int(fit.history[-1]["epoch"]),
        "gates": {gate.name: gate.result for gate in gates},
    }


def _number(items: pl.DataFrame, target: Path) -> dict[str, Any]:
    """Write a catalogue whose semantic IDs are the item numbers, for a system that has no codebook."""
    reason = "popularity has no codebook: an item's only code is its number"
    codes = np.arange(len(items), dtype=np.int32)[:, None]
    catalog = Catalog.build(items, codes)
    catalog.write(target / "catalogue.parquet")
    files.write_json_atomic(target / "codebook.json", {"format": 1, "kind": "popularity", "skipped": reason})
    health = codebook_health(codes, len(items))
    _write_health(target, "popularity", health, [identity_gate(health)])
    return {"rows": len(catalog), "codes": 1, "skipped": reason}


def _write_health(target: Path, kind: str, health: dict[str, Any], gates: list[GateResult]) -> None:
    document = {"schema_version": 1, "kind": kind, **health, "gates": [gate.model_dump(mode="json") for gate in gates]}
    files.write_json_atomic(target / "health.json", document)


def _spread(values: NDArray[np.float32]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
    }


def _content_only(codes: NDArray[np.int32], quantized: NDArray[np.int32]) -> dict[str, list[float]]:
    """Return, by depth, the share of items whose codes stay when they are encoded like a new item, by text alone."""
    same = np.cumprod(codes == quantized, axis=1)
    return {"same_prefix": same.mean(axis=0).tolist()}
