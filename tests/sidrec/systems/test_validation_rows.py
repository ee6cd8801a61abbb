"""Rows that a stage is judged on are all there are, up to a number that does not grow with users."""

from typing import Any

import polars as pl
import pytest

from sidrec.systems import validation_rows
from sidrec.systems.validation_rows import drawn_rows


def test_as_many_rows_as_are_wanted_are_all_of_them(world: Any) -> None:
    assert drawn_rows(world.training_set.lazy(), 0).equals(world.training_set)
    assert drawn_rows(pl.LazyFrame(), 0).is_empty()


def test_of_more_rows_the_seed_draws_some(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole rows of the table, none twice, in its order; the same seed draws the same."""
    monkeypatch.setattr(validation_rows, "MOST_DRAWN", 9)
    rows = world.training_set.with_row_index("place")
    first, again, other = (drawn_rows(rows.lazy(), seed) for seed in (0, 0, 1))

    assert first["place"].is_sorted()
    assert first["place"].n_unique() == len(first) == 9
    assert first.equals(rows[first["place"].to_list()])
    assert first.equals(again)
    assert not first.equals(other)
