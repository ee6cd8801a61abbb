"""Fit the recipe's system on the days before the gate window, or carry the live model on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from sidrec import files
from sidrec.bundle import Bundle, open_bundle
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.recipe import Recipe, build, fit_inputs
from sidrec.systems.base import FitInputs

SECTIONS = (
    "kind",
    "codebook",
    "model",
    "training",
    "activation",
    "repeat",
    "seed",
    "threads",
    "as_of",
    "gate_days",
)


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/model` and `folder/logs` (TensorBoard); a killed step goes on from its checkpoint in `folder`.

    With the live bundle among the inputs, the codebook's decision says how its model follows: carried over an
    appended catalogue with every weight, fine-tuned on a refreshed one, or left behind for one trained from scratch.

    Raises:
        CheckFailedError: the live model is of another system or shape than the recipe's.
    """
    system = build(recipe)
    # Systems without curves leave it empty; the artefact is there all the same.
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    catalog = Catalog.read(inputs["codebook"] / "catalogue.parquet")
    how = files.read_json(inputs["decision"])["training"] if "champion" in inputs else "scratch"
    print(f"train_model: {_SAID[how]}", flush=True)
    if how == "scratch":
        fit = fit_inputs(recipe, catalog, inputs)
        return {"rows": _rows(fit), "training": how, **system.fit(fit, folder)}
    live = open_bundle(inputs["champion"])
    _require_same_model(live, recipe, how)
    if how == "carry":
        before = Catalog.read(live.folder / "catalogue.parquet")
        return {"training": how, "from": live.bundle_id, **system.carry(live.folder, before, catalog, folder)}
    fit = replace(fit_inputs(recipe, catalog, inputs), start=live.folder)
    return {"rows": _rows(fit), "training": how, "from": live.bundle_id, **system.fit(fit, folder)}


_SAID = {
    "scratch": "trained from scratch",
    "carry": "the live model is carried: every weight as it is",
    "fine_tune": "fine-tuned from the live model",
}


def _rows(fit: FitInputs) -> int:
    return int(fit.baskets.select(pl.len()).collect().item())


def _require_same_model(live: Bundle, recipe: Recipe, how: str) -> None:
    was, asked = live.recipe, recipe
    if was.kind == asked.kind and was.section("model") == asked.section("model"):
        return
    seen = f"{was.kind} with model {was.section('model')}"
    raise CheckFailedError(
        f"the codebook's decision is to {how.replace('_', '-')} the live model, and that is {seen}; "
        f"the recipe asks for {asked.kind} with model {asked.section('model')}",
        evidence=live.folder,
        next_step="sidrec run, which trains from scratch",
    )
