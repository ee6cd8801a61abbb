"""Fit the text embedder on the catalogue and give every item its vector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy

from sidrec import files
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.recipe import Recipe

SECTIONS = ("kind", "embedding")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/vectors` [item, dim], rows as in the items table, and `folder/embedder`."""
    items = pl.read_parquet(inputs["items"])
    if recipe.kind == "popularity":
        reason = "popularity does not read item texts"
        safetensors.numpy.save_file({"vectors": np.zeros((len(items), 0), dtype=np.float32)}, folder / "vectors")
        files.write_json_atomic(folder / "embedder" / "embedder.json", {"skipped": reason})
        return {"rows": len(items), "skipped": reason}
    texts = item_texts(items)
    embedder = TextEmbedder.fit(texts, recipe.embedding)
    vectors = embedder.embed(texts)
    embedder.save(folder / "embedder")
    safetensors.numpy.save_file({"vectors": vectors}, folder / "vectors")
    return {
        "rows": len(items),
        "dim": vectors.shape[1],
        "features": len(embedder.vocabulary),
        "items_without_text": int((np.abs(vectors).max(axis=1) == 0).sum()),
        "distinct_vectors": len(np.unique(vectors, axis=0)),
    }
