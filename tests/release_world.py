"""A small release: real bundles of a popularity model, gate answers and signed verdicts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.package_bundle import run as package
from sidrec import files
from sidrec.bundle import Bundle, open_bundle
from sidrec.data.catalog import Catalog
from sidrec.evaluation.gates import GateResult, Result
from sidrec.recipe import Recipe, parse_recipe
from sidrec.release.verdict import Verdict, make_verdict, sign_verdict
from sidrec.systems.popularity import popularity_log_probs

ROOT = Path(__file__).parents[1]
RECIPE_TEXT = (ROOT / "pipelines" / "recipes" / "popularity_retail.yaml").read_text(encoding="utf-8")
NUM_ITEMS = 12
GATES = ("codebook", "quality", "serving")


def recipe() -> Recipe:
    return parse_recipe(RECIPE_TEXT)


def gate(name: Any, result: Result = "pass", check: str = "check", **values: Any) -> GateResult:
    numbers = {"threshold": 0.0, "observed": 0.5, "interval": (0.1, 0.9), "n": 100}
    return GateResult(gate=name, name=check, result=result, sentence=f"{name} says {result}.", **(numbers | values))


def step_inputs(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write the folders that `package_bundle` reads: a codebook's and a model's."""
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    codebook, model = folder / "codebook", folder / "model"
    (codebook / "embedder").mkdir(parents=True)
    model.mkdir()
    items = pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in range(NUM_ITEMS)],
            "title": [f"item {row}" for row in range(NUM_ITEMS)],
            "popularity": generator.integers(0, 50, NUM_ITEMS),
            "recent_popularity": generator.integers(0, 9, NUM_ITEMS),
        }
    )
    catalog = Catalog.build(items, np.arange(NUM_ITEMS, dtype=np.int32)[:, None])
    catalog.write(codebook / "catalogue.parquet")
    save_file({"codewords": generator.random((4, 2), dtype=np.float32)}, codebook / "codebook.safetensors")
    files.write_json_atomic(codebook / "codebook.json", {"num_levels": 1})
    files.write_json_atomic(codebook / "health.json", {"gates": [gate("codebook").model_dump(mode="json")]})
    files.write_json_atomic(codebook / "embedder" / "embedder.json", {"dim": 2})
    save_file({"log_probs": popularity_log_probs(catalog)}, model / "weights.safetensors")
    files.write_json_atomic(model / "model.json", {"kind": "popularity"})
    (model / "training_log.jsonl").write_text(f'{{"seconds": {generator.random()}}}\n')
    return {"codebook": codebook, "model": model}


def make_bundle(folder: Path, seed: int = 0) -> Bundle:
    """Package a bundle under `folder/bundle`; one seed always makes the same bytes."""
    inputs = step_inputs(folder / "inputs", seed)
    package.run(recipe(), inputs, folder)
    return open_bundle(folder / "bundle")


def make_signed(
    bundle: Bundle,
    path: Path,
    gates: list[GateResult] | None = None,
    *,
    now: datetime | None = None,
    fresh_days: int = 30,
) -> Verdict:
    """Sign a verdict on `bundle`; all three gates pass unless told otherwise."""
    verdict = make_verdict(
        bundle,
        [gate(name) for name in GATES] if gates is None else gates,
        metrics={"all": {"ndcg@10": 0.25}, "novel": {"ndcg@10": 0.04}},
        champion=None,
        fresh_days=fresh_days,
        recipe_sha256="0" * 64,
        git_sha="0" * 40,
        versions={"sidrec": "0"},
        now=now or datetime.now(UTC),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    sign_verdict(verdict, path)
    return verdict
