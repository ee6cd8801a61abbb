"""A slot is one state of data, recipe and code."""

from pathlib import Path

import pytest

from pipelines.slot import slot_of
from sidrec.errors import RecipeError
from sidrec.recipe import parse_recipe

TEXT = (Path(__file__).parents[2] / "pipelines" / "recipes" / "s2gr_retail.yaml").read_text()


def recipe(events: Path, **changes: str) -> str:
    text = TEXT.replace("data/online_retail/transactions.parquet", str(events))
    for old, new in changes.items():
        text = text.replace(f"{old}: 0", f"{old}: {new}")
    return text


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"one")
    return path


def test_same_everything_is_the_same_slot(events: Path) -> None:
    """Two looks at the same state find the same slot."""
    assert slot_of(parse_recipe(recipe(events))) == slot_of(parse_recipe(recipe(events)))


def test_new_data_is_a_new_slot(events: Path) -> None:
    """One more byte of data is another slot."""
    before = slot_of(parse_recipe(recipe(events)))
    events.write_bytes(b"more")

    assert slot_of(parse_recipe(recipe(events))) != before


def test_new_recipe_is_a_new_slot(events: Path) -> None:
    """Another seed is another slot."""
    assert slot_of(parse_recipe(recipe(events))) != slot_of(parse_recipe(recipe(events, seed="1")))


def test_missing_data_names_the_path(tmp_path: Path) -> None:
    """A recipe whose events are not there says where it looked."""
    with pytest.raises(RecipeError, match="nothing_here"):
        slot_of(parse_recipe(recipe(tmp_path / "nothing_here")))


def test_new_items_are_a_new_slot(events: Path, tmp_path: Path) -> None:
    """A changed items file under the same name is another slot."""
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n")
    text = recipe(events).replace("  adapter:", f"  items: {items}\n  adapter:")
    before = slot_of(parse_recipe(text))
    items.write_text("item_id,title\n1,one\n")

    assert slot_of(parse_recipe(text)) != before
