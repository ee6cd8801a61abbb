"""Great Expectations finds on Spark what it finds on pandas, and the step hands on the same tables."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.validate_events.run import run
from components.validate_events.suite import (
    Validator,
    column_expectations,
    format_expectations,
    kept_expectations,
    null_user_expectation,
    row_expectations,
)
from sidrec.data.adapters import open_adapter
from sidrec.data.adapters.source import as_text
from sidrec.data.cleaning import clean
from sidrec.data.engine import open_engine
from sidrec.files import read_json
from tests import data_world as world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("pyspark") is None, reason="no pyspark: pip install 'sidrec[spark]'"),
]


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SIDREC_DATA_ENGINE", "spark:local[2]")
    return open_engine()


def test_every_finding_is_the_same(spark: Any, tmp_path: Path) -> None:
    """Formats of raw text, row rules that thousands break, and time order, which one table keeps and one does not."""
    recipe = world.retail_recipe()
    adapter = open_adapter(recipe.data, recipe.as_of)
    raw = adapter.read()
    source = adapter.parse(raw)
    cleaned = clean(raw.events, source, gate_start=recipe.gate_start, watermark=None)
    text = as_text(raw.events, adapter.columns()["events"], path=Path("raw"))
    swapped = text.rename({"Price": "Quantity", "Quantity": "Price"})
    suites: dict[str, tuple[pl.DataFrame, Any]] = {
        "columns": (text, lambda: column_expectations("events", [*text.columns, "absent"])),
        "formats": (text, lambda: format_expectations(adapter.formats(raw))),
        "swapped": (swapped, lambda: format_expectations(adapter.formats(raw))),
        "rows": (source.rows, lambda: [null_user_expectation(0.1, 0.2), *row_expectations(cleaned.rules)]),
        "kept": (cleaned.events, kept_expectations),
        "disordered": (cleaned.events.reverse(), kept_expectations),
    }

    for name, (table, expectations) in suites.items():
        here = Validator(tmp_path / "pandas").validate(name, table, expectations())
        there = Validator(tmp_path / "spark", spark).validate(name, table, expectations())
        assert [(one.rule, one.passed, one.observed) for one in there] == [
            (one.rule, one.passed, one.observed) for one in here
        ], name


def test_the_step_hands_on_the_same_tables(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounting, tables and Data Docs, and nothing of Spark's is left behind."""
    recipe = world.shop_recipe(world.shop_data(tmp_path))
    folders = {"spark:local[2]": tmp_path / "spark", "polars": tmp_path / "polars"}
    for engine, folder in folders.items():
        folder.mkdir()
        monkeypatch.setenv("SIDREC_DATA_ENGINE", engine)
        run(recipe, {}, folder)

    there, here = folders.values()
    assert read_json(there / "accounting") == read_json(here / "accounting")
    for name in ("events", "sales", "items_raw", "quarantine"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in here.iterdir())
