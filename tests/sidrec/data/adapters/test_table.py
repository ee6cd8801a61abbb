"""Own files through column maps."""

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from sidrec.data.adapters import open_adapter
from sidrec.data.adapters.source import PLACE, Source
from sidrec.data.batch import open_batch
from sidrec.data.config import DataConfig
from sidrec.data.rows import first_broken
from sidrec.data.tables import Polars, values
from sidrec.errors import RecipeError
from tests import data_world as world


def parse(folder: Path, events: pl.DataFrame | None = None) -> Source:
    config = DataConfig.model_validate(world.shop_data(folder, events))
    adapter = open_adapter(config, world.START)
    return open_batch(adapter, Polars(), folder).parse()


def test_mapped_columns_arrive_under_our_names(tmp_path: Path) -> None:
    """Ids, times, quantities and titles come from the columns that the recipe names."""
    source = parse(tmp_path)

    first = values(source.rows.sort(PLACE).head(1))[0]
    theirs = world.shop_events().row(0, named=True)
    assert (first["user_id"], first["item_id"], first["quantity"]) == (
        theirs["customer"],
        theirs["sku"],
        theirs["pieces"],
    )
    assert source.items is not None
    items = values(source.items.sort("item_id").head(1))
    assert tuple(items[0].values())[:3] == ("s000", "blue thing number 0", "acme")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sku": None}, "T1"),
        ({"bought_at": "yesterday"}, "T2"),
        ({"bought_at": "1970-01-01"}, "T3"),
        ({"sku": "never listed"}, "T4"),
        ({"pieces": "-2"}, "T5"),
        ({"customer": None}, "T7"),
        ({}, None),
    ],
)
def test_a_bad_row_breaks_its_rule(change: dict[str, str | None], rule: str | None, tmp_path: Path) -> None:
    """Each fault of a row is found under its rule; a good row breaks none."""
    good = {"customer": "c1", "sku": "s001", "bought_at": "2026-01-05", "pieces": "1"}
    events = pl.DataFrame([{**good, **change}], schema=dict.fromkeys(good, pl.String))

    source = parse(tmp_path, events)

    assert values(source.rows.select(first_broken(source.rules))) == [{"rule": rule}]


def test_a_map_of_unknown_or_doubled_columns_is_refused() -> None:
    """The recipe's maps name our columns, each of yours once."""
    base = {"adapter": "table", "events": "e.csv", "items": "i.csv"}
    with pytest.raises(ValidationError, match="event_columns maps client"):
        DataConfig.model_validate({**base, "event_columns": {"client": "c"}})
    with pytest.raises(ValidationError, match="two of our columns"):
        DataConfig.model_validate({**base, "event_columns": {"user_id": "c", "item_id": "c"}})


def test_own_data_needs_an_items_file() -> None:
    """Without titles there is nothing to embed."""
    with pytest.raises(RecipeError, match="items file"):
        open_adapter(DataConfig(adapter="table", events=Path("e.csv")), world.START)
