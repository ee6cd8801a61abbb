"""A tiny bundle that is real: popular items, packed, hashed and servable."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from sidrec import files
from sidrec.bundle import Bundle, write_bundle
from sidrec.data.catalog import Catalog
from sidrec.recipe import load_recipe
from sidrec.release.revision import Arm, BundleRef, Revision
from sidrec.systems.base import FitInputs
from sidrec.systems.popularity import PopularitySystem

ROOT = Path(__file__).parents[2]
NUM_ITEMS = 150


def make_bundle(folder: Path, *, name: str = "bundle", newest: int = 0, item_id: str = "i{}") -> Bundle:
    """Return a popularity bundle; `newest` rotates the popular order, so that two bundles answer differently."""
    _, recipe = load_recipe(ROOT / "pipelines/recipes/popularity_retail.yaml")
    work = folder / f"{name}-work"
    work.mkdir(parents=True)
    recent = np.roll(np.arange(NUM_ITEMS, 0, -1), newest)
    items = pl.DataFrame(
        {
            "item_id": [item_id.format(row) for row in range(NUM_ITEMS)],
            "title": [f"TITLE {row}" for row in range(NUM_ITEMS)],
            "popularity": recent * 10,
            "recent_popularity": recent,
            "first_sold": [date(2010, 1, 1)] * NUM_ITEMS,
        }
    )
    catalog = Catalog.build(items, np.arange(NUM_ITEMS, dtype=np.int32)[:, None])
    empty = pl.LazyFrame()
    PopularitySystem().fit(FitInputs(empty, empty, catalog, work, recipe.gate_start, 0, 1), work)
    catalog.write(work / "catalogue.parquet")
    (work / "recipe.yaml").write_text((ROOT / "pipelines/recipes/popularity_retail.yaml").read_text())
    files.write_json_atomic(
        work / "decode.json",
        {"kind": "popularity", "beam_width": recipe.decoding.beam_width, "as_of_time": recipe.as_of_time},
    )
    parts = {path.name: path for path in (work / "model").iterdir()}
    parts |= {one: work / one for one in ("catalogue.parquet", "recipe.yaml", "decode.json")}
    return write_bundle(folder / name, parts, {})


def make_revision(number: int, *bundles: Bundle, clock: str = "event", **changes: object) -> Revision:
    """Return a revision with one equal share a bundle."""
    names = ("control", "treatment")
    values = {
        "revision": number,
        "arms": tuple(
            Arm(name=names[index], bundle=BundleRef.of(bundle), share=1 / len(bundles))
            for index, bundle in enumerate(bundles)
        ),
        "experiment": "test" if len(bundles) > 1 else None,
        "salt": "s",
        "deadline_ms": 2000,
        "history_deadline_ms": 200,
        "history_max_age_days": 400,
        "exposure_flush_s": 0.2,
        "clock": clock,
    }
    return Revision.model_validate(values | changes)
