"""Write what the recipe's system needs before its fit and no training setting changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.recipe import Recipe

# Value by value: a teacher is paid, and neither another learning rate nor another time-out makes its texts others.
SECTIONS = (
    "kind",
    "corpus.items",
    "corpus.histories",
    "corpus.attempts",
    "corpus.max_fallback_share",
    "corpus.temperature",
    "corpus.teacher.kind",
    "corpus.teacher.base_url",
    "corpus.teacher.model",
    "corpus.teacher.json_mode",
    "model.max_history",
    "training.held_out_share",
    "seed",
    "as_of",
    "gate_days",
)


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/prepared`; it is empty, and the summary says `skipped` and why, where a fit needs none.

    A killed step keeps in `folder` what it has, such as a teacher's replies.
    """
    why = _unneeded(recipe, inputs)
    if why:
        (folder / "prepared").mkdir(parents=True, exist_ok=True)
        return {"skipped": why}
    # Torch comes with these, and most systems end above.
    from sidrec.data.catalog import Catalog
    from sidrec.recipe import build, fit_inputs
    from sidrec.systems.base import Prepares

    system = build(recipe)
    assert isinstance(system, Prepares)
    catalog = Catalog.read(inputs["codebook"] / "catalogue.parquet")
    return system.prepare(fit_inputs(recipe, catalog, inputs), folder)


def _unneeded(recipe: Recipe, inputs: Mapping[str, Path]) -> str:
    if not recipe.prepares:
        return f"{recipe.kind} needs nothing before its fit"
    if "decision" in inputs and files.read_json(inputs["decision"])["training"] == "carry":
        return "the live model is carried, and nothing is fitted"
    return ""
