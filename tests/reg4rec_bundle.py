"""A small REG4Rec bundle that answers, is explained and is served: random weights, fitted on nothing."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml

from sidrec import files
from sidrec.bundle import Bundle, write_bundle
from sidrec.data.catalog import Catalog
from sidrec.recipe import Reg4RecRecipe, parse_recipe
from sidrec.systems.reg4rec.categories import Categories
from sidrec.systems.reg4rec.model import Reg4RecModel
from sidrec.systems.reg4rec.train import write_model
from sidrec.systems.repeat import RepeatPath

ROOT = Path(__file__).parents[1]
ITEMS, SLOTS, SIZE, NAMES = 60, 4, 8, 6
AS_OF = 1_291_161_600


def reg4rec_bundle(folder: Path, *, consistency: float = 0.3, name: str = "bundle") -> Bundle:
    """Return the bundle; its titles look like rich's markup, its paths differ, and CORP prunes."""
    values = yaml.safe_load((ROOT / "pipelines/recipes/reg4rec_debug.yaml").read_text())
    values["search"] = {"consistency": consistency, "prune_from": 3}
    values["model"] |= {"num_categories": NAMES, "temperature": 0.3}
    text = yaml.safe_dump(values)
    recipe = parse_recipe(text)
    assert isinstance(recipe, Reg4RecRecipe)
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, SIZE, (4 * ITEMS, SLOTS)), axis=0)
    codes = rng.permutation(codes)[:ITEMS].astype(np.int32)
    paths = [f"section {row % NAMES}" for row in range(ITEMS)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in range(ITEMS)],
            "title": [f"[red]ITEM {row}[/]" for row in range(ITEMS)],
            "popularity": np.arange(ITEMS),
            "recent_popularity": np.arange(ITEMS) % 7,
            "categories": paths,
        }
    )
    catalog = Catalog.build(items, codes)
    torch.manual_seed(0)
    model = Reg4RecModel(recipe.model, num_slots=SLOTS, codebook_size=SIZE)
    made = folder / f"{name}-work"
    categories = Categories(tuple(f"section {number}" for number in range(NAMES)), torch.zeros(NAMES, SLOTS * 4))
    path = RepeatPath((1.0, 0.5, -0.2, 0.1, 0.3, 0.2), (0.3, 0.1, 0.1, 0.2, 0.0, 0.0), 120.0)
    write_model(made, model, torch.rand(ITEMS), categories, torch.arange(ITEMS) % NAMES, path, [])
    catalog.write(made / "catalogue.parquet")
    decode = {"kind": "reg4rec", "beam_width": 20, "as_of_time": AS_OF, "clock": "event"}
    files.write_json_atomic(made / "decode.json", decode)
    (made / "recipe.yaml").write_text(text)
    return write_bundle(folder / name, {path.name: path for path in made.iterdir()}, {})
