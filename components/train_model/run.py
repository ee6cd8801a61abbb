"""Fit the recipe's system on the days before the gate window."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.recipe import Recipe, build
from sidrec.systems.base import FitInputs

SECTIONS = ("kind", "model", "training", "repeat", "seed", "threads", "as_of", "gate_days")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/model`; a killed step goes on from the checkpoint it left in `folder`."""
    baskets = pl.read_parquet(inputs["baskets"])
    # Later baskets are the gate's; nothing of them may reach a weight.
    fit_baskets = baskets.filter(pl.col("day") < recipe.gate_start)
    fit = FitInputs(
        baskets=fit_baskets,
        training_set=pl.read_parquet(inputs["training_set"]).filter(pl.col("day") < recipe.gate_start),
        catalog=Catalog.read(inputs["codebook"] / "catalogue.parquet"),
        codebook=inputs["codebook"],
        fit_end=recipe.gate_start,
        seed=recipe.seed,
        threads=recipe.threads,
    )
    return {"rows": len(fit_baskets), **build(recipe).fit(fit, folder)}
