"""The shipped retail data as baskets, and a small bundle with a basket table around it."""

import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from sidrec.data.baskets import build_baskets
from sidrec.data.ingest import clean_tables
from sidrec.recipe import Recipe, load_recipe
from tests.monitoring.drift_world import BUNDLE_ID, World, at


@pytest.fixture(scope="session")
def recipe(project_root: Path) -> Recipe:
    """The default recipe, with its data's path absolute."""
    parsed = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[1]
    data = parsed.data.model_copy(update={"events": project_root / parsed.data.events})
    return parsed.model_copy(update={"data": data})


@pytest.fixture(scope="session")
def retail(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real basket table, by the library's own ingestion."""
    data = recipe.data
    cleaned = clean_tables(data, as_of=recipe.as_of, gate_start=recipe.gate_start, watermark=data.watermark)
    path = tmp_path_factory.mktemp("retail") / "baskets"
    build_baskets(cleaned.events, recipe.as_of).write_parquet(path)
    return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A bundle folder and a basket table, as the report reads them."""
    items = [f"i{number}" for number in range(16)]
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    codes = [[number % 4, number // 4] for number in range(16)]
    catalogue = pl.DataFrame({"item_id": items, "codes": codes}, schema_overrides={"codes": pl.List(pl.Int32)})
    catalogue.write_parquet(bundle / "catalogue.parquet")
    (bundle / "manifest.json").write_text(json.dumps({"bundle_id": BUNDLE_ID}))
    days = [date(2010, 10, number) for number in range(1, 31)]
    rows = [
        {"user_id": f"u{number}", "day": day, "time": at(day, 36_000), "item_ids": items}
        for day in days
        for number in range(20)
    ]
    baskets = tmp_path / "baskets"
    pl.DataFrame(rows).write_parquet(baskets)
    return World(bundle, baskets)
