"""Give every item its vector, by the live bundle's frozen embedder where the recipe still asks for that one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy

from sidrec import files
from sidrec.data.embedding import Embedder, differing, fit_embedder, open_embedder
from sidrec.recipe import Recipe, parse_recipe

SECTIONS = ("kind", "embedding")


def vector_sources(recipe: str) -> dict[str, Path]:
    """Return the user's vectors or model folder, if a recipe's YAML text names one that is there.

    They are inputs: with other content the step is not the same one, though the recipe is.
    """
    embedding = parse_recipe(recipe).embedding
    named = {"vectors_file": embedding.vectors, "model": None if embedding.model is None else Path(embedding.model)}
    return {name: path for name, path in named.items() if path is not None and path.exists()}


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/vectors` [item, dim], rows as in the items table, and `folder/embedder`."""
    items = pl.read_parquet(inputs["items"])
    if recipe.kind == "popularity":
        reason = "popularity does not read item texts"
        safetensors.numpy.save_file({"vectors": np.zeros((len(items), 0), dtype=np.float32)}, folder / "vectors")
        files.write_json_atomic(folder / "embedder" / "embedder.json", {"skipped": reason})
        return {"rows": len(items), "skipped": reason}
    frozen, why = _frozen(recipe, inputs.get("frozen"))
    embedder = frozen or fit_embedder(items, recipe.embedding)
    vectors = embedder.vectors(items)
    shutil.rmtree(folder / "embedder", ignore_errors=True)
    if frozen is None:
        embedder.save(folder / "embedder")
    else:
        shutil.copytree(inputs["frozen"], folder / "embedder")
    safetensors.numpy.save_file({"vectors": vectors}, folder / "vectors")
    print(f"embed_items: {why}", flush=True)
    return {
        "rows": len(items),
        "dim": vectors.shape[1],
        "source": recipe.embedding.source,
        "frozen": frozen is not None,
        "why": why,
        "items_without_text": int((np.abs(vectors).max(axis=1) == 0).sum()),
        "distinct_vectors": len(np.unique(vectors, axis=0)),
    }


def _frozen(recipe: Recipe, folder: Path | None) -> tuple[Embedder | None, str]:
    """Return the live embedder, None where it cannot serve this recipe, and why."""
    config = recipe.embedding
    if folder is None or "skipped" in files.read_json(folder / "embedder.json"):
        return None, "fitted on these items: none is live"
    if config.refit:
        return None, "fitted on these items: the recipe asks for a new lineage (embedding.refit)"
    live = open_embedder(folder, vectors=config.vectors)
    changed = differing(live, config)
    if changed:
        shown = ", ".join(f"embedding.{name}" for name in changed)
        return None, f"fitted on these items: the recipe differs from the live one in {shown}"
    return live, "the live bundle's, frozen"
