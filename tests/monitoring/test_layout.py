"""Which spans a report compares."""

from datetime import date, timedelta

import polars as pl

from monitoring import layout
from monitoring.layout import layout_of
from monitoring.windows import week_of
from tests.monitoring.drift_world import at

WEEK = week_of(date(2010, 11, 1))


def times(*days: date) -> pl.Series:
    return pl.Series([at(day) for day in days], dtype=pl.Int64)


def test_requests_are_compared_with_the_four_weeks_before() -> None:
    """Five weeks back is too old, four is not."""
    plan = layout_of(times(date(2010, 9, 30), date(2010, 10, 4), date(2010, 11, 1)), WEEK)
    newest = plan.newest
    spans = [plan.parts[part] for part in newest.reference]

    assert (plan.reference_name, newest.current, newest.window) == ("earlier", (0,), WEEK)
    assert (min(span.first for span in spans), max(span.after for span in spans)) == (
        at(date(2010, 10, 4)),
        at(date(2010, 11, 1)),
    )
    assert layout.whole(plan) == (0,)


def test_earlier_windows_are_compared_where_requests_come_before_them() -> None:
    """The week before has its own four weeks; one whose own are empty is left out."""
    plan = layout_of(times(date(2010, 10, 19), date(2010, 10, 26), date(2010, 11, 1)), WEEK)

    assert [one.window.start for one in plan.comparisons] == [date(2010, 11, 1), date(2010, 10, 25)]


def test_a_first_week_is_compared_with_its_own_first_half() -> None:
    """Both halves are disjoint and together the week."""
    days = times(*(date(2010, 11, 1) + timedelta(days=number) for number in range(6)))
    plan = layout_of(days, WEEK)
    [current], [reference] = plan.newest.current, plan.newest.reference

    assert plan.reference_name == "first_half"
    spans = [plan.parts[part] for part in (reference, current)]
    assert [int(days.is_between(span.first, span.after, closed="left").sum()) for span in spans] == [3, 3]
    assert layout.whole(plan) == (0, 1)


def test_no_requests_at_all_compare_nothing() -> None:
    """An empty log gives a layout whose reference is empty, not an error."""
    plan = layout_of(times(), WEEK)

    assert plan.parts[plan.newest.reference[0]].first == plan.parts[plan.newest.reference[0]].after
