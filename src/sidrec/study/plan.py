"""What a recipe's fit would read and what it lacks, said before anything is fitted."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog, disambiguate
from sidrec.errors import UsageError
from sidrec.quantization.config import CodebookConfig
from sidrec.recipe import CodebookRecipe, Recipe, build
from sidrec.study.data import study_data
from sidrec.systems.base import Plans


def plan_of(recipe: Recipe, data: Path | None = None) -> dict[str, Any]:
    """Return the sizes of a recipe's data, and what its system says of a fit on them, `missing` things among it.

    Args:
        data: events, or a folder of them, instead of the recipe's.

    Raises:
        UsageError: the data or the system's packages are not here, or the recipe has no codebook.
    """
    if not isinstance(recipe, CodebookRecipe):
        raise UsageError(f"nothing is fitted of kind {recipe.kind}: there is nothing to plan")
    if data is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"events": data})})
    system = build(recipe)
    read = study_data(recipe, "test")
    catalog = Catalog.build(read.items, stand_in_codes(len(read.items), recipe.codebook))
    said = system.plan(recipe.codebook, catalog, read.baskets, seed=recipe.seed) if isinstance(system, Plans) else {}
    return {
        "recipe": recipe.name,
        "kind": recipe.kind,
        "items": len(catalog),
        "users": read.baskets.select(pl.col("user_id").n_unique()).item(),
        "baskets": len(read.baskets),
        "judged_rows": {kind: len(targets.rows) for kind, targets in read.targets.items()},
        "missing": [],
        **said,
    }


def stand_in_codes(items: int, config: CodebookConfig) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Return codes [item, level] that tell items apart as a fitted codebook's would: numbers, digit by digit."""
    size, levels = config.codebook_size, config.num_levels
    number = np.arange(items)
    digits = [number // size**level % size for level in reversed(range(levels))]
    return disambiguate(np.stack(digits, axis=1).astype(np.int32))
