"""Great Expectations finds in parts, and on Spark, what it finds in the whole table."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.validate_events import parts
from components.validate_events.suite import (
    Finding,
    Validator,
    column_expectations,
    format_expectations,
    kept_expectations,
    null_user_expectation,
    order_expectation,
    row_expectations,
)
from sidrec.data.adapters import online_retail, open_adapter
from sidrec.data.adapters.source import as_text
from sidrec.data.batch import open_batch
from sidrec.data.cleaning import clean
from sidrec.data.engine import open_engine
from sidrec.data.tables import Polars
from tests import data_world as world

PART_ROWS = 2_000
SPARK = pytest.param(
    "spark",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(find_spec("pyspark") is None, reason="no pyspark: pip install 'sidrec[spark]'"),
    ],
)


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[pl.DataFrame, Any]]:
    """Tables, good and spoilt, and what is expected of them."""
    folder = tmp_path_factory.mktemp("sheet")
    world.retail("2010-11-30").head(4_000).write_parquet(folder / "sheet.parquet")
    recipe = world.retail_recipe(folder / "sheet.parquet")
    batch = open_batch(open_adapter(recipe.data, recipe.as_of), Polars(), folder)
    cleaned = clean(batch.parse(), Polars(), folder, gate_start=recipe.gate_start, watermark=None)
    text = as_text(batch.events, online_retail.COLUMNS, path=folder)  # type: ignore[arg-type]
    rows, events = cleaned.rows.frame, cleaned.events.frame
    swapped = text.rename({"Price": "Quantity", "Quantity": "Price"})
    many = text.with_columns(Country=pl.col("Description"))
    return {
        "columns": (text, lambda: column_expectations("events", [*text.columns, "absent"])),
        "formats": (text, lambda: format_expectations(online_retail.FORMATS)),
        "swapped": (swapped, lambda: format_expectations(online_retail.FORMATS)),
        "many countries": (many, lambda: format_expectations(online_retail.FORMATS)),
        "absent": (text.drop("Price"), lambda: format_expectations(online_retail.FORMATS)),
        "rows": (rows, lambda: [null_user_expectation(0.1, 0.2), *row_expectations(cleaned.rules)]),
        "kept": (events, kept_expectations),
        "order": (events, lambda: [order_expectation()]),
        "disorder in a part": (
            pl.concat([events.head(10).reverse(), events.slice(10)]),
            lambda: [order_expectation()],
        ),
        "disorder between parts": (
            pl.concat([events.tail(PART_ROWS), events.head(events.height - PART_ROWS)]),
            lambda: [order_expectation()],
        ),
    }


@pytest.mark.parametrize("judge", ["parts", SPARK])
def test_every_finding_is_the_same(
    judge: str, suites: dict[str, tuple[pl.DataFrame, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats of raw text, row rules that many break, an absent column, and an order within and between parts."""
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS)
    monkeypatch.setenv("SIDREC_DATA_ENGINE", "spark:local[2]")
    whole = Validator(tmp_path / "whole")
    pieces = Validator(tmp_path / "pieces", open_engine() if judge == "spark" else None)  # type: ignore[arg-type]

    for name, (table, expectations) in suites.items():
        table.write_parquet(tmp_path / f"{name}.parquet")
        in_order = "order" in name
        there = pieces.validate(name, tmp_path / f"{name}.parquet", expectations(), in_order=in_order)
        assert told(there) == told(whole.validate(name, table, expectations())), name


def told(findings: list[Finding]) -> list[tuple[object, ...]]:
    """What a finding decides and says; which values it quotes depends on where it began to look."""
    return [(one.rule, one.passed, one.observed, one.sentence.partition(", e.g.")[0]) for one in findings]


def test_data_docs_show_a_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page a suite, with the rows of all parts on it, not of the first."""
    monkeypatch.setattr(parts, "PART_ROWS", 300)
    pl.DataFrame({"user_id": ["u"] * 1_000 + [None] * 234}).write_parquet(tmp_path / "rows.parquet")
    validator = Validator(tmp_path / "docs")

    validator.validate("rows", tmp_path / "rows.parquet", [null_user_expectation(0.1, 0.2)])
    validator.write_docs()

    (page,) = (tmp_path / "docs" / "validations").rglob("batch-rows.html")
    assert "234 unexpected values found" in page.read_text(encoding="utf-8")
    assert "1234 total rows" in page.read_text(encoding="utf-8")
