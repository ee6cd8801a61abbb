"""DuckDB and Spark hand on what polars does, row by row, and hold a piece of the events at a time."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.validate_events import parts
from components.validate_events.run import run
from sidrec.data import batch
from sidrec.data.adapters.table import Table
from sidrec.errors import ValidationFailedError
from sidrec.files import read_json
from sidrec.recipe import Recipe, load_recipe
from tests import data_world as world
from tests.data_world import BEAUTY, ENGINES

TABLES = ("events", "sales", "items_raw", "quarantine")


def made(recipe: Recipe, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, str], list[str]]:
    """Run the step; return its counts, its accounting, a hash of each table's schema and rows, and what it left."""
    folder.mkdir()
    counts = run(recipe, {}, folder)
    tables = {name: pl.read_parquet(folder / name) for name in TABLES}
    hashes = {
        name: hashlib.sha256(f"{table.schema}{table.rows()}".encode()).hexdigest() for name, table in tables.items()
    }
    return counts, read_json(folder / "accounting"), hashes, sorted(path.name for path in folder.iterdir())


def shop(folder: Path) -> Recipe:
    """A shop with a row for each rule, lines to merge whose quantities are parts, and a column called rule."""
    events = world.shop_events().with_columns(
        pl.col("pieces").cast(pl.Float64) / 10, paid=pl.lit("1.5"), kind=pl.lit(None, pl.String), rule=pl.lit("theirs")
    )
    events = events.with_columns(pl.col(pl.Float64).cast(pl.String))
    faults = [
        {"sku": None},
        {"sku": "unlisted"},
        {"bought_at": "soon"},
        {"bought_at": "1980-01-01"},
        {"pieces": "0"},
        {"paid": "-1"},
        {"customer": " "},
        {"customer": None},
        {"pieces": None},
    ]
    row = events.row(1000, named=True)
    twice = pl.concat([events.slice(500, 40), events.slice(520, 40).with_columns(pieces=pl.lit("0.7"))])
    bad = pl.DataFrame([row | fault for fault in faults], schema=events.schema)
    whole = pl.concat([events.head(900), bad, events.slice(900), twice])
    data = world.shop_data(folder, whole)
    return world.shop_recipe(
        {**data, "event_columns": {**data["event_columns"], "price": "paid", "event_type": "kind"}}
    )


def retail(folder: Path) -> Recipe:
    """Every tenth invoice of the shipped sheet's first weeks, with a column of lists, which no text has."""
    tenth = pl.col("Invoice").str.ends_with("0")
    sheet = pl.read_parquet(world.RAW).filter(pl.col("InvoiceDate") < "2010-01-10", tenth)
    sheet.with_columns(
        tags=pl.col("Quantity").map_elements(lambda n: [n], return_dtype=pl.List(pl.Int64))
    ).write_parquet(folder / "sheet.parquet")
    return world.retail_recipe(folder / "sheet.parquet", as_of="2010-01-10", gate_days=10)


def reviews(folder: Path, *, known: bool) -> Recipe:
    """Reviews in no order, some users missing, with times or without."""
    rows = 4000
    frame = pl.DataFrame({"n": range(rows)}).select(
        user_id=pl.when(pl.col("n") % 301 != 0).then(pl.format("u{}", pl.col("n") * 7919 % 97)),
        item_id=pl.when(pl.col("n") % 501 != 0).then(pl.format("i{}", pl.col("n") * 31 % 60)),
        timestamp=1_390_000_000 + pl.col("n") * 7919 % 300 * 43_200 if known else pl.lit(None, pl.Int64),
        seq_pos=pl.col("n") * 104_729 % 1000,
    )
    frame.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": [f"i{n}" for n in range(58)], "title": [f"thing {n}" for n in range(58)]}).write_parquet(
        folder / "items.parquet"
    )
    data = {"adapter": "amazon", "events": str(folder), "derive_times": not known}
    limits = {"min_last_day_volume": 0, "min_events": 1, "min_known_item_share": 0.9}
    return world.recipe(data, as_of="2014-06-10", gate_days=1 if not known else 30, validation=limits)


def beauty() -> Recipe:
    if not BEAUTY.exists():
        pytest.skip("no Amazon data here: SIDREC_BENCH_DATA names a folder with amazon_beauty_2014")
    _, recipe = load_recipe(world.ROOT / "pipelines" / "recipes" / "s2gr_beauty.yaml")
    data = recipe.data.model_copy(update={"events": BEAUTY, "watermark": date(2014, 7, 20)})
    return recipe.model_copy(update={"data": data, "as_of": date(2014, 7, 20), "gate_days": 60})


WORLDS: dict[str, Any] = {
    "shop": shop,
    "retail": retail,
    "reviews": lambda folder: reviews(folder, known=True),
    "reviews without times": lambda folder: reviews(folder, known=False),
    "whole retail": lambda folder: world.retail_recipe(),
    "beauty": lambda folder: beauty(),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in ("whole retail", "beauty") else []) for name in WORLDS
    ],
)
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe and what polars makes of it."""
    folder = tmp_path_factory.mktemp("world")
    recipe = WORLDS[request.param](folder)
    return recipe, made(recipe, folder / "polars")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a test's tables have several."""
    monkeypatch.setattr(batch, "PIECE_ROWS", 1_700)
    monkeypatch.setattr(parts, "PART_ROWS", 1_300)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_hands_on_the_same_rows(
    engine: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Counts, accounting, and every table's rows in order; and the same files lie in the step's folder."""
    recipe, polars = expected
    monkeypatch.setenv("SIDREC_DATA_ENGINE", engine)
    if polars[0]["rows_in"] < 100_000:
        request.getfixturevalue("small")

    assert made(recipe, tmp_path / "step") == polars


def test_no_more_than_a_piece_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    """What is parsed and what is judged here has a piece's rows at most, and all of them have been both."""
    parsed, judged = [], []
    rows, frames = Table.rows, parts.parts

    def parsing(self: Table, events: pl.DataFrame) -> pl.DataFrame:
        parsed.append(events.height)
        return rows(self, events)

    def judging(path: Path, columns: list[str]) -> Any:
        for frame in frames(path, columns):
            judged.append(len(frame))
            yield frame

    monkeypatch.setattr(Table, "rows", parsing)
    monkeypatch.setattr(parts, "parts", judging)
    monkeypatch.setenv("SIDREC_DATA_ENGINE", "duckdb:200MB")

    counts, *_ = made(shop(tmp_path), tmp_path / "step")

    assert max(parsed) == 1_700
    assert sum(parsed) == counts["rows_in"]
    assert max(judged) == 1_300
    # Twice as the file has them and as rows, twice what is kept.
    assert sum(judged) == 2 * counts["rows_in"] + 2 * counts["kept"]


def ragged(folder: Path) -> Recipe:
    recipe = shop(folder)
    recipe.data.events.write_text(recipe.data.events.read_text() + "a,b,c,d,e,f,g,h,i,j\n")
    return recipe


def empty(folder: Path) -> Recipe:
    recipe = shop(folder)
    recipe.data.events.write_text(recipe.data.events.read_text().splitlines()[0] + "\n")
    return recipe


def damaged(folder: Path) -> Recipe:
    recipe = retail(folder)
    content = bytearray(recipe.data.events.read_bytes())
    content[60_000:64_000] = bytes(4_000)
    recipe.data.events.write_bytes(content)
    return recipe


def changed(folder: Path, *changes: pl.Expr, without: str = "absent", **more: pl.Expr) -> Recipe:
    recipe = retail(folder)
    sheet = pl.read_parquet(recipe.data.events).with_columns(*changes, **more).drop(without, strict=False)
    sheet.write_parquet(recipe.data.events)
    return recipe


FAULTS: dict[str, Any] = {
    "ragged": ragged,
    "empty": empty,
    "damaged": damaged,
    "missing": lambda folder: changed(folder, without="Price"),
    "lists": lambda folder: changed(folder, pl.concat_list("Price").alias("Price")),
    "swapped": lambda folder: changed(folder, Price=pl.col("Quantity"), Quantity=pl.col("Price")),
    "titles as countries": lambda folder: changed(folder, pl.col("Description").alias("Country")),
    "cancelled": lambda folder: changed(
        folder,
        pl.when(pl.int_range(pl.len()) % 5 == 0).then("C" + pl.col("Invoice")).otherwise("Invoice").alias("Invoice"),
    ),
    "order without times": lambda folder: reviews(folder, known=False).model_copy(
        update={"data": reviews(folder, known=False).data.model_copy(update={"derive_times": False})}
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_engine_refuses_in_the_same_words(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    """The message, and the findings beside it."""
    said = []
    recipe = FAULTS[fault](tmp_path)
    for engine in ("polars", "duckdb"):
        monkeypatch.setenv("SIDREC_DATA_ENGINE", engine)
        step = tmp_path / engine
        step.mkdir()
        with pytest.raises(ValidationFailedError) as caught:
            run(recipe, {}, step)
        evidence = read_json(step / "evidence.json")
        said.append((caught.value.message, evidence["rule"], evidence.get("findings")))
        assert not (step / "events").exists()

    assert said[0] == said[1]
