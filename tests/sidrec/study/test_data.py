"""A study's data: the fit period ends before what is judged, and training rows are those of the feature store."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.errors import UsageError
from sidrec.recipe import load_recipe
from sidrec.study.data import events_path, study_data, training_rows
from sidrec.study.rows import queries_of, single_targets
from tests.sidrec.study.study_world import write_recipe, write_world

ROOT = Path(__file__).parents[3]


def test_training_rows_by_hand() -> None:
    """A row for each later basket of the window; its history is capped at whole baskets before its own day."""
    day = date(2010, 10, 1)
    baskets = pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "b"],
            "day": [
                day - timedelta(days=40),
                day - timedelta(days=3),
                day - timedelta(days=1),
                day - timedelta(days=2),
            ],
            "time": [0, 100, 200, 150],
            "item_ids": [["x", "y"], ["z"], ["x"], ["z"]],
        }
    )
    rows = training_rows(baskets, day, days=31, cap=2)

    assert rows.select("user_id", "history_item_ids", "history_times", "target_item_ids").rows() == [
        ("a", ["x", "y"], [0, 0], ["z"]),
        ("a", ["z"], [100], ["x"]),
    ]


@pytest.mark.parametrize("target", ["valid", "test"])
def test_retail_is_judged_after_its_fit_period_and_never_in_december(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    _, recipe = load_recipe(ROOT / "pipelines/recipes/s2gr_retail.yaml")
    data = study_data(recipe, target)  # type: ignore[arg-type]
    start = {"test": date(2010, 11, 1), "valid": date(2010, 10, 1)}[target]
    judged = data.protocol.basket_day[data.protocol.row_basket]

    assert data.fit_end == start
    assert data.baskets["day"].max() < start
    assert data.training_set["day"].max() < start
    assert judged.min() >= (start - date(1970, 1, 1)).days
    assert judged.max() < (date(2010, 12, 1) - date(1970, 1, 1)).days
    assert {"test": 1280, "valid": 1117}[target] == data.protocol.num_rows


def test_data_are_looked_for_under_the_variable_and_missing_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", Path("world")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIDREC_BENCH_DATA", str(tmp_path / "else"))
    with pytest.raises(UsageError, match="world is neither here nor under"):
        events_path(recipe)
    write_world(tmp_path / "else" / "world")

    assert events_path(recipe) == tmp_path / "else" / "world"


def test_a_repeat_path_without_days_is_refused(tmp_path: Path) -> None:
    _, recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", write_world(tmp_path / "world")))
    repeating = recipe.model_copy(update={"repeat": recipe.repeat.model_copy(update={"enabled": True})})
    with pytest.raises(UsageError, match="leave_one_out has none"):
        study_data(repeating, "test")


def test_queries_are_the_rows_histories(tmp_path: Path) -> None:
    _, recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", write_world(tmp_path / "world")))
    data = study_data(recipe, "test")
    events = pl.read_parquet(tmp_path / "world" / "interactions.parquet").sort("user_id", "seq_pos")
    index = {item: number for number, item in enumerate(data.protocol.item_ids)}
    expected = [[index[item] for item in own["item_id"]] for own in events.partition_by("user_id", maintain_order=True)]

    queries = queries_of(data.protocol, k=5)
    assert [query.items.tolist() for query in queries] == [own[:-1] for own in expected]
    assert single_targets(data.protocol).tolist() == [own[-1] for own in expected]
    assert all(np.array_equal(query.basket, np.arange(len(query.items))) for query in queries)
