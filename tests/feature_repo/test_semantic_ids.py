"""Semantic IDs are features of an item under one codebook lineage."""

from pathlib import Path

import polars as pl
import pytest

from feature_repo.semantic_ids import publish_semantic_ids
from feature_repo.store import live_folder, open_store
from sidrec import home
from sidrec.errors import ServingError, UsageError
from tests import feature_world as world


def _catalogue(folder: Path, shift: int, num_items: int = 2) -> Path:
    path = folder / f"catalogue-{shift}.parquet"
    table = pl.DataFrame(
        {"item_id": ["item-00", "item-01"], "title": ["a", "b"], "codes": [[shift, 1, -1], [shift, 2, 0]]},
        schema_overrides={"codes": pl.List(pl.Int32)},
    )
    table.head(num_items).write_parquet(path)
    return path


def _codes(lineage: str) -> list[list[int] | None]:
    store = open_store(live_folder(home.feast_dir()))
    rows = [{"item_id": item_id, "codebook_lineage": lineage} for item_id in ("item-00", "item-01")]
    codes: list[list[int] | None] = store.get_online_features(
        features=["item_semantic_id:codes"], entity_rows=rows
    ).to_dict()["codes"]
    return codes


def test_lineages_lie_side_by_side_and_each_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A refreshed codebook's IDs do not mix with the old one's."""
    world.make_store(tmp_path)

    assert publish_semantic_ids(_catalogue(tmp_path, 5), "first") == 2
    publish_semantic_ids(_catalogue(tmp_path, 6), "second")
    publish_semantic_ids(_catalogue(tmp_path, 7), "first")

    assert _codes("first") == [[7, 1, -1], [7, 2, 0]]
    assert _codes("second") == [[6, 1, -1], [6, 2, 0]]
    assert _codes("unknown") == [None, None]


def test_published_ids_are_in_the_next_store_too(tmp_path: Path) -> None:
    """A new generation starts with each lineage's newest publication, an item that left it left out."""
    world.make_store(tmp_path)
    publish_semantic_ids(_catalogue(tmp_path, 5), "first")
    publish_semantic_ids(_catalogue(tmp_path, 6), "second")
    publish_semantic_ids(_catalogue(tmp_path, 7, num_items=1), "second")

    world.make_store(tmp_path, key="b" * 64)

    assert _codes("first") == [[5, 1, -1], [5, 2, 0]]
    assert _codes("second") == [[7, 1, -1], None]


def test_publishing_needs_a_store_and_a_catalogue(tmp_path: Path) -> None:
    """Both faults are named."""
    with pytest.raises(ServingError, match="no feature store"):
        publish_semantic_ids(_catalogue(tmp_path, 5), "first")
    with pytest.raises(UsageError, match="need a catalogue and its lineage"):
        publish_semantic_ids(tmp_path / "absent.parquet", "first")
