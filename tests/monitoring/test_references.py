"""References: what `--reference` names, and nothing of the gate window unless asked for."""

from datetime import date

import polars as pl
import pytest

from monitoring import references
from monitoring.windows import Window, week_of
from sidrec import exposure
from sidrec.errors import UsageError
from tests.monitoring.drift_world import at, exposed

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


def test_requests_are_compared_with_the_four_weeks_before() -> None:
    """Five weeks back is too old, four is not; all of the week's own requests are compared."""
    week = week_of(GATE_START)
    times = {
        name: at(date(2010, 9, 27 + days)) if days < 4 else at(date(2010, 10, days))
        for name, days in (("old", 3), ("first", 4), ("last", 31))
    }
    rows = [exposed(name, "a", time, ["i1"]) for name, time in times.items()]
    rows.append(exposed("now", "a", at(GATE_START), ["i1"]))

    before, compared = references.request_reference(exposure.frame(rows).lazy(), week)

    assert before.rows.collect()["request_id"].to_list() == ["first", "last"]
    assert compared.collect()["request_id"].to_list() == ["now"]


def test_a_first_week_is_compared_with_its_own_first_half() -> None:
    """Without earlier requests both halves are disjoint and together the week."""
    rows = [exposed(f"r{number}", "a", at(GATE_START, number), ["i1"]) for number in range(6)]

    before, compared = references.request_reference(exposure.frame(rows).lazy(), week_of(GATE_START))

    assert before.name == "first_half"
    assert before.rows.collect()["request_id"].to_list() == ["r0", "r1", "r2"]
    assert compared.collect()["request_id"].to_list() == ["r3", "r4", "r5"]


def test_no_requests_at_all_compare_nothing() -> None:
    """An empty log gives two empty tables, not an error."""
    before, compared = references.request_reference(exposure.SCHEMA.to_frame().lazy(), Window(GATE_START, GATE_START))

    assert before.rows.collect().is_empty()
    assert compared.collect().is_empty()
