"""The benchmark of evaluation runs small; without its data it says so; both sides answer for the same users."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import evaluate
from benchmarks.decode import Shape, World, equal
from benchmarks.evaluate import CAP, QUICK, Searches, Sizes, beauty
from sidrec.study.data import DATA_VARIABLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten users of Beauty's file: user n has n + 2 events of thirty items, rows out of order."""
    rows = [(f"u{user}", f"i{(user * 7 + place) % 30:02d}", place) for user in range(10) for place in range(user + 2)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "seq_pos"], orient="row").sample(fraction=1, shuffle=True)
    (tmp_path / "amazon_beauty_2014").mkdir()
    table.write_parquet(tmp_path / "amazon_beauty_2014" / "interactions.parquet")
    return tmp_path


def test_without_the_data_a_row_says_so_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    rows = evaluate.run(quick=True)["results"]

    assert "not measured: amazon_beauty_2014" in rows[0]["notes"]
    assert [row["ratio"] is not None for row in rows] == [False, True, True]
    assert all(row["met"] is None for row in rows)


def test_histories_are_all_but_the_last_item_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    users = beauty(10)

    assert users is not None
    assert (users.total, users.items) == (10, 30)
    assert [items.tolist() for items in users.histories] == [
        [(user * 7 + place) % 30 for place in range(user + 1)] for user in range(10)
    ]


@pytest.mark.parametrize("engine", ["decoder-only", "encoder-decoder"])
def test_users_of_all_lengths_have_the_peers_answers(engine: str) -> None:
    """Ours takes them by length and pads on the right, the peer as they come; every user's answer is his own."""
    world = World.of(Shape(3, 4, (), history=CAP, codes=8, items=60), QUICK.widths)
    histories = [np.arange(length) for length in (5, 1, 9, 2, 2, 7)]
    searches = Searches(world, histories, QUICK)

    assert "the same items for 6 requests" in equal(searches.ours(engine)(), searches.peer(engine))


@pytest.mark.slow
def test_searches_are_measured_where_the_data_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are those of all ten users, of whom six were measured."""
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    rows = evaluate.run(quick=True)["results"]

    assert len(rows) == 4
    assert all("6 users measured" in row["notes"] and row["ratio"] > 0 for row in rows[:2])
    assert Sizes().goal(15) == 15
