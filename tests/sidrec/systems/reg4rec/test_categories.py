"""Categories of items: the shop's own where it has them, clusters of codewords where it does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.systems.base import MODEL, WEIGHTS
from sidrec.systems.reg4rec.categories import Categories, fit_categories, path_names
from sidrec.systems.reg4rec.rank import CENTRES, OF_ITEM
from sidrec.systems.reg4rec.train import Reg4RecSystem
from tests.sidrec.systems.reg4rec.conftest import system_of

PATHS = ["Hair; Shampoo", "Hair; Oil; Dry", "Hair; Oil; Wet", "Face; Soap", "Face"]


def themed(world: Any) -> Catalog:
    """Return the tiny world's catalogue whose items have a category by theme, one in sixteen none."""
    paths = [None if item % 16 == 3 else f"theme {item // 8}; row {item % 2}" for item in range(64)]
    return replace(world.catalog, categories=paths)


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (9, ("Face", "Face; Soap", "Hair; Oil; Dry", "Hair; Oil; Wet", "Hair; Shampoo")),
        (4, ("Face", "Face; Soap", "Hair; Oil", "Hair; Shampoo")),
        (3, ("Face", "Hair")),
        (1, ("Hair",)),
    ],
)
def test_names_are_the_finest_level_that_fits(limit: int, names: tuple[str, ...]) -> None:
    """By hand: leaves, then level 2, then level 1, then the most frequent of level 1."""
    assert path_names([*PATHS, None, " ; "], limit) == names


def test_an_item_is_named_by_its_path_and_else_by_the_nearest_centre() -> None:
    """Without a category, with an unknown one and with one below a known one: by hand."""
    vectors = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [9.0, 0.0], [1.0, 1.0]])
    paths = ["a; x", "a; y", "b", None, "c"]
    categories = fit_categories("metadata", paths, vectors, 2, seed=0)

    assert categories.names == ("a", "b")
    torch.testing.assert_close(categories.centres, torch.tensor([[1.0, 0.0], [10.0, 0.0]]))
    assert categories.of(paths, vectors).tolist() == [0, 0, 1, 1, 0]
    assert categories.of(["b; new"], vectors[:1]).tolist() == [1]


@pytest.mark.parametrize(("named", "distinct", "own"), [(9, 8, True), (8, 8, False), (9, 7, False)])
def test_auto_takes_metadata_where_nearly_every_item_has_some(named: int, distinct: int, own: bool) -> None:
    """90 % of items and eight names are enough, less of either is not."""
    vectors = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    paths = [f"c{item % distinct}" if item < 10 * named else None for item in range(100)]

    assert bool(fit_categories("auto", paths, vectors, 12, seed=0).names) == own
    assert fit_categories("clusters", paths, vectors, 12, seed=0).names == ()
    assert len(fit_categories("metadata", paths, vectors, 12, seed=0).names) == distinct


def test_metadata_without_any_is_refused() -> None:
    with pytest.raises(UsageError, match="none of the 2 items has a category"):
        fit_categories("metadata", [None, ""], torch.zeros(2, 3), 4, seed=0)


def test_a_fit_learns_the_shops_categories_and_keeps_their_names(
    world: Any, system: Reg4RecSystem, tmp_path: Path
) -> None:
    """Eight themes fit into eight categories; items without one lie in that of the nearest centre."""
    inputs = replace(world.inputs(), catalog=themed(world))
    summary = system.fit(inputs, tmp_path)
    header, tensors = files.read_json(tmp_path / "model" / MODEL), load_file(tmp_path / "model" / WEIGHTS)
    named = [item for item in range(64) if item % 16 != 3]

    assert summary["categories"] == {"of": "metadata", "number": 8}
    assert header["categories"] == [f"theme {theme}" for theme in range(8)]
    assert tensors[OF_ITEM][named].tolist() == [item // 8 for item in named]
    assert ((tensors[OF_ITEM] >= 0) & (tensors[OF_ITEM] < 8)).all()


def test_a_fine_tune_keeps_the_numbers_of_categories(world: Any, system: Reg4RecSystem, tmp_path: Path) -> None:
    """The head's rows mean what they meant, also where the catalogue has a name more that sorts before them."""
    system.fit(replace(world.inputs(), catalog=themed(world)), tmp_path / "first")
    renamed = themed(world)
    renamed = replace(renamed, categories=["another", *renamed.categories[1:]])
    start = tmp_path / "first" / "model"
    system.fit(replace(world.inputs(), catalog=renamed, start=start), tmp_path / "second")
    before, after = (load_file(tmp_path / name / "model" / WEIGHTS) for name in ("first", "second"))

    assert files.read_json(tmp_path / "second" / "model" / MODEL)["categories"][0] == "theme 0"
    assert after[OF_ITEM][1:].tolist() == before[OF_ITEM][1:].tolist()
    torch.testing.assert_close(after[CENTRES], before[CENTRES], rtol=0, atol=0)


def test_an_appended_item_has_the_category_of_its_name(world: Any, system: Reg4RecSystem, tmp_path: Path) -> None:
    """Known names keep their numbers; a new name is in none until the next fit."""
    catalog = themed(world)
    system.fit(replace(world.inputs(), catalog=catalog), tmp_path / "first")
    grown = appended(catalog, ["theme 5; row 7", "something new"])
    system.carry(tmp_path / "first" / "model", catalog, grown, tmp_path / "carried")
    carried = load_file(tmp_path / "carried" / "model" / WEIGHTS)
    ranker = system.open(tmp_path / "carried" / "model", grown)

    assert carried[OF_ITEM][64:].tolist() == [5, -1]
    assert carried[OF_ITEM][:64].tolist() == load_file(tmp_path / "first" / "model" / WEIGHTS)[OF_ITEM].tolist()
    assert ranker.categories is not None
    assert ranker.categories.names[5] == "theme 5"


def test_a_model_from_before_categories_were_kept_still_answers(world: Any, tmp_path: Path) -> None:
    """Its weights lack the items' categories: nothing but an explanation reads them."""
    from safetensors.torch import save_file

    system = system_of(training={"epochs": 1})
    system.fit(world.inputs(), tmp_path)
    folder = tmp_path / "model"
    save_file({n: v for n, v in load_file(folder / WEIGHTS).items() if n != OF_ITEM}, folder / WEIGHTS)
    header = files.read_json(folder / MODEL)
    files.write_json_atomic(folder / MODEL, {name: value for name, value in header.items() if name != "categories"})
    ranker = system.open(folder, world.catalog)

    assert ranker.categories is None
    assert system.carry(folder, world.catalog, world.catalog, tmp_path / "carried")["new_items"] == 0


def appended(catalog: Catalog, paths: list[str | None]) -> Catalog:
    """Return the catalogue with new items of free codes behind it."""
    taken = {tuple(row) for row in catalog.codes.tolist()}
    free = [(a, b, c) for a in range(8) for b in range(8) for c in range(8) if (a, b, c) not in taken]
    added = len(paths)
    zeros = np.zeros(added, dtype=np.int64)
    return Catalog(
        item_ids=[*catalog.item_ids, *(f"new{number}" for number in range(added))],
        titles=[*catalog.titles, *(f"new {number}" for number in range(added))],
        codes=np.concatenate([catalog.codes, np.array(free[:added], dtype=np.int32)]),
        popularity=np.concatenate([catalog.popularity, zeros]),
        recent_popularity=np.concatenate([catalog.recent_popularity, zeros]),
        first_sold=[*catalog.first_sold, *[None] * added],
        categories=[*catalog.categories, *paths],
    )


def test_clusters_have_no_names() -> None:
    categories = Categories((), torch.tensor([[0.0], [4.0]]))

    assert categories.of([None, "a"], torch.tensor([[1.0], [3.0]])).tolist() == [0, 1]
