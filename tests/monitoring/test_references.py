"""References: what `--reference` names, and nothing of the gate window unless asked for."""

from datetime import date

import polars as pl
import pytest

from monitoring import references
from sidrec.errors import UsageError

GATE_START = date(2010, 11, 1)


@pytest.fixture
def baskets() -> pl.LazyFrame:
    """One basket a day around the gate's first day."""
    days = [date(2010, 10, 3), date(2010, 10, 4), date(2010, 10, 31), GATE_START]
    return pl.LazyFrame({"user_id": ["a"] * 4, "day": days, "item_ids": [["i1"]] * 4})


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("fit", [date(2010, 10, 3), date(2010, 10, 4), date(2010, 10, 31)]),
        ("recent", [date(2010, 10, 4), date(2010, 10, 31)]),
        ("2010-10-03..2010-10-04", [date(2010, 10, 3), date(2010, 10, 4)]),
    ],
)
def test_names_of_purchase_references(baskets: pl.LazyFrame, name: str, days: list[date]) -> None:
    """`fit` and `recent` end before the gate; a named range holds both its days."""
    rows = references.purchase_reference(baskets, name, GATE_START).rows

    assert sorted(rows.collect()["day"].to_list()) == days


@pytest.mark.parametrize("name", ["yesterday", "2010-10-04", "2010-10-04..", "2010-10-05..2010-10-04"])
def test_another_name_is_refused(baskets: pl.LazyFrame, name: str) -> None:
    """A reference that names no days is a usage error that says what is expected."""
    with pytest.raises(UsageError, match=r"fit, recent, or FIRST\.\.LAST"):
        references.purchase_reference(baskets, name, GATE_START)
