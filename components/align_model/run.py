"""Align the fitted model, where its system has such a stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidrec.data.catalog import Catalog
from sidrec.recipe import Recipe, build, fit_inputs

SECTIONS = (
    "kind",
    "codebook",
    "model",
    "training",
    "activation",
    "alignment",
    "repeat",
    "search",
    "seed",
    "threads",
    "as_of",
    "gate_days",
)


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/model_aligned`; the summary says `skipped` and why where there is nothing to align."""
    catalog = Catalog.read(inputs["codebook"] / "catalogue.parquet")
    return build(recipe).align(inputs["model"], fit_inputs(recipe, catalog, inputs), folder)
