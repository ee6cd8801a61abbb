"""DuckDB and Spark make the rows that polars does, on the shipped data and on Beauty."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.build_sequences.run import run
from components.validate_events import run as validate_events
from sidrec.errors import CheckFailedError, UsageError
from sidrec.recipe import Recipe, load_recipe
from tests import data_world as world
from tests.data_world import BEAUTY, ENGINES


def made(recipe: Recipe, inputs: dict[str, Path], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the step; return its counts and a hash of each table's schema and rows in order."""
    folder.mkdir()
    counts = run(recipe, inputs, folder)
    tables = {name: pl.read_parquet(folder / name) for name in ("baskets", "items")}
    return counts, {
        name: hashlib.sha256(f"{table.schema}{table.rows()}".encode()).hexdigest() for name, table in tables.items()
    }


def beauty() -> Recipe:
    """Return Beauty's recipe on the data of this machine."""
    if not BEAUTY.exists():
        pytest.skip("no Amazon data here: SIDREC_BENCH_DATA names a folder with amazon_beauty_2014")
    _, recipe = load_recipe(world.ROOT / "pipelines" / "recipes" / "s2gr_beauty.yaml")
    # The file's last days are thin, as reviews arrive late.
    data = recipe.data.model_copy(update={"events": BEAUTY, "watermark": date(2014, 7, 20)})
    return recipe.model_copy(update={"data": data, "as_of": date(2014, 7, 20), "gate_days": 60})


@pytest.fixture(
    scope="module", params=["shop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("retail", "beauty"))]
)
def checked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe, its validated tables, and what polars makes of them."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "shop":
        recipe = world.shop_recipe(world.shop_data(folder))
    elif request.param == "retail":
        recipe = world.retail_recipe()
    else:
        recipe = beauty()
    validate_events.run(recipe, {}, folder)
    inputs = {name: folder / name for name in ("events", "sales", "items_raw")}
    return recipe, inputs, made(recipe, inputs, folder / "polars")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_makes_the_same_rows(
    engine: str, checked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal counts, schemas and rows, order included; and the same files when it is done again."""
    recipe, inputs, expected = checked
    monkeypatch.setenv("SIDREC_DATA_ENGINE", engine)

    assert made(recipe, inputs, tmp_path / "once") == expected


def test_an_empty_window_is_refused_on_an_engine_too(checked: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The refusal names the same window."""
    recipe, inputs, _ = checked
    monkeypatch.setenv("SIDREC_DATA_ENGINE", "duckdb")

    with pytest.raises(CheckFailedError, match="no basket before 19"):
        run(recipe.model_copy(update={"as_of": recipe.as_of.replace(year=1999)}), inputs, tmp_path)


def test_an_unknown_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with those that there are."""
    monkeypatch.setenv("SIDREC_DATA_ENGINE", "flink")

    with pytest.raises(UsageError, match="'flink', expected polars, duckdb, spark"):
        run(world.retail_recipe(), {}, tmp_path)
