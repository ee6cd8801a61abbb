"""A small SIDReasoner bundle that answers, is explained and is served: random weights, fitted on nothing."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml

from sidrec import files
from sidrec.bundle import Bundle, write_bundle
from sidrec.data.catalog import Catalog
from sidrec.recipe import SIDReasonerRecipe, parse_recipe
from sidrec.systems.sidreasoner.backbone import load
from sidrec.systems.sidreasoner.model_files import TRAINING_LOG, write_model
from sidrec.systems.sidreasoner.vocab import SidVocab
from tests.reg4rec_bundle import AS_OF, ITEMS, ROOT

LEVELS, SIZE, WORDS = 3, 8, 6


def sidreasoner_bundle(folder: Path, *, mode: str = "think", name: str = "bundle") -> Bundle:
    """Return the bundle; its rationales are six words of nonsense, which differ by history."""
    values = yaml.safe_load((ROOT / "pipelines/recipes/sidreasoner_debug.yaml").read_text())
    values["search"] = {"mode": mode, "max_rationale_tokens": WORDS}
    text = yaml.safe_dump(values)
    recipe = parse_recipe(text)
    assert isinstance(recipe, SIDReasonerRecipe)
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, SIZE, (4 * ITEMS, LEVELS)), axis=0)
    codes = rng.permutation(codes)[:ITEMS].astype(np.int32)
    items = pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in range(ITEMS)],
            "title": [f"[red]ITEM {row}[/]" for row in range(ITEMS)],
            "popularity": np.arange(ITEMS),
            "recent_popularity": np.arange(ITEMS) % 7,
        }
    )
    catalog = Catalog.build(items, codes)
    made = folder / f"{name}-work"
    vocab = SidVocab.of(catalog, num_levels=LEVELS, codebook_size=SIZE)
    backbone = load(recipe.model, vocab, catalog.titles * 3, folder / f"{name}-tiny", seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in backbone.model.parameters():
            if weight.ndim == 2:  # large enough that items differ clearly
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    write_model(made, backbone, recipe.model, "none", [{"stage": "stage_1", "epoch": 1}])
    (made / TRAINING_LOG).unlink()
    catalog.write(made / "catalogue.parquet")
    decode = {"kind": "sidreasoner", "beam_width": 20, "as_of_time": AS_OF, "clock": "event"}
    files.write_json_atomic(made / "decode.json", decode)
    (made / "recipe.yaml").write_text(text)
    parts = {str(path.relative_to(made)): path for path in made.rglob("*") if path.is_file()}
    return write_bundle(folder / name, parts, {})
