"""Decide what happens to the live codebook, do it, and give every item its semantic ID."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy

from components.train_codebook.sabotage import sabotage
from sidrec import files
from sidrec.bundle import open_bundle
from sidrec.codebook.artefact import Artefact
from sidrec.codebook.build import Sources, build
from sidrec.codebook.gates import identity_gate
from sidrec.codebook.page import health_page
from sidrec.codebook.record import write_artefact
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.quantization.health import codebook_health
from sidrec.recipe import CodebookRecipe, Recipe

SECTIONS = ("kind", "seed", "as_of", "gate_days", "codebook", "lifecycle", "gates")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/codebook` (sealed), `folder/decision` (the verb and why) and `folder/page` (health, for a person).

    Raises:
        CheckFailedError: a gate says no, before anything is trained on such codes; the report says which and why.
    """
    target = folder / "codebook"
    items = pl.read_parquet(inputs["items"])
    if not isinstance(recipe, CodebookRecipe):
        return _number(items, inputs["embedder"], folder)
    vectors = safetensors.numpy.load_file(inputs["vectors"])["vectors"]
    # Baskets of the gate window may not reach a codeword.
    baskets = pl.read_parquet(inputs["baskets"]).filter(pl.col("day") < recipe.gate_start)
    parent = _live(inputs)
    sources = Sources(items, vectors, baskets, files.sha256_tree(inputs["embedder"]), recipe.gate_start)
    scratch = "carry_from" not in inputs
    built = build(parent, sources, recipe.codebook, recipe.lifecycle, seed=recipe.seed, scratch=scratch)
    if "broken" in inputs:
        built = sabotage(built, parent, files.read_json(inputs["broken"])["break"])
    print(f"train_codebook: {built.decision.verb}: {built.decision.reason}", flush=True)
    if "sentence" in built.notes:
        print(f"train_codebook: {built.notes['sentence']}", flush=True)
    gates = write_artefact(
        built,
        parent,
        inputs["embedder"],
        target,
        lifecycle=recipe.lifecycle,
        gates=recipe.gates,
        vectors=vectors if built.decision.verb == "fit" else None,
    )
    health = files.read_json(target / "health.json")
    files.write_text_atomic(folder / "page", health_page(health, title=recipe.name, catalog=built.catalog))
    files.write_json_atomic(folder / "decision", {**built.decision.as_dict(), "churn": health["churn"]})
    failed = [gate for gate in gates if gate.result == "fail"]
    if failed:
        raise CheckFailedError(
            " ".join(f"Codebook gate {gate.name}: {gate.sentence}" for gate in failed),
            evidence=target / "health.json",
            next_step=f"open {folder / 'page'} in a browser; the live bundle is as it was",
        )
    return {
        "rows": len(built.catalog),
        "codes": built.catalog.num_codes,
        **built.decision.as_dict(),
        "generation": built.codebook.generation,
        "min_utilisation": gates[0].observed,
        "collision_rate": health["collision_rate"],
        "churn": None if health["churn"] is None else health["churn"]["share"],
        "gates": {gate.name: gate.result for gate in gates},
    }


def _live(inputs: Mapping[str, Path]) -> Artefact | None:
    """Return the live bundle's codebook, None where there is none."""
    if "champion" not in inputs:
        return None
    return Artefact.in_bundle(open_bundle(inputs["champion"]).folder)


def _number(items: pl.DataFrame, embedder: Path, folder: Path) -> dict[str, Any]:
    """Write a catalogue whose semantic IDs are the item numbers, for a system that has no codebook."""
    reason = "popularity has no codebook: an item's only code is its number"
    target = folder / "codebook"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(embedder, target / "embedder")
    codes = np.arange(len(items), dtype=np.int32)[:, None]
    catalog = Catalog.build(items, codes)
    catalog.write(target / "catalogue.parquet")
    files.write_json_atomic(target / "codebook.json", {"format": 1, "kind": "popularity", "skipped": reason})
    health = codebook_health(codes, len(items))
    gate = identity_gate(health)
    document = {"schema_version": 1, "kind": "popularity", **health, "gates": [gate.model_dump(mode="json")]}
    files.write_json_atomic(target / "health.json", document)
    files.write_json_atomic(folder / "decision", {"verb": "fit", "reason": reason, "training": "scratch"})
    files.write_text_atomic(folder / "page", f"<p>{reason}</p>\n")
    return {"rows": len(catalog), "codes": 1, "skipped": reason}
