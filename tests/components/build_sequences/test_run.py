"""The step refuses inputs that do not fit its recipe."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.build_sequences.run import run
from components.validate_events import run as validate_events
from sidrec.errors import CheckFailedError
from tests import data_world as world


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Path]]:
    """The shop's data section and its validated tables."""
    folder = tmp_path_factory.mktemp("shop")
    data = world.shop_data(folder)
    validate_events.run(world.shop_recipe(data), {}, folder)
    return data, {name: folder / name for name in ("events", "sales", "items_raw")}


Checked = tuple[dict[str, Any], dict[str, Path]]


def test_own_data_become_baskets_and_items(checked: Checked, tmp_path: Path) -> None:
    """CSV in, baskets and a catalogue with the shop's titles out; the summary counts both windows."""
    data, inputs = checked

    summary = run(world.shop_recipe(data), inputs, tmp_path)
    baskets, items = pl.read_parquet(tmp_path / "baskets"), pl.read_parquet(tmp_path / "items")

    assert summary["rows"] == baskets.height == summary["fit_baskets"] + summary["gate_baskets"]
    assert summary["catalogue"] == items.height > 50
    assert set(items["title"]) <= set(world.shop_items()["name"])


def test_same_inputs_give_the_same_bytes(checked: Checked, tmp_path: Path) -> None:
    """Two runs write identical files."""
    data, inputs = checked
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
        run(world.shop_recipe(data), inputs, folder)

    for name in ("baskets", "items"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_an_empty_window_is_refused(checked: Checked, tmp_path: Path) -> None:
    """An as_of before the data has no fit basket."""
    data, inputs = checked

    with pytest.raises(CheckFailedError, match="no basket before 2025-12-12"):
        run(world.shop_recipe(data, as_of="2026-01-01"), inputs, tmp_path)


def test_items_of_another_as_of_are_refused(checked: Checked, tmp_path: Path) -> None:
    """Titles that were chosen with later knowledge do not enter an earlier catalogue."""
    data, inputs = checked

    with pytest.raises(CheckFailedError, match="made for another as_of"):
        run(world.shop_recipe(data, as_of="2026-02-01", gate_days=26), inputs, tmp_path)
