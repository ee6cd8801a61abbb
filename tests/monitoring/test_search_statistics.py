"""Numbers of searches are averaged over a week, by name."""

from datetime import date

import pytest

from monitoring.search_statistics import statistic, statistics
from sidrec.exposure import Exposure
from tests.monitoring.drift_world import at, exposed
from tests.monitoring.test_measures import counted


def asked(index: int, **stats: float) -> Exposure:
    said = [{"name": name, "value": value} for name, value in stats.items()]
    return exposed(f"r{index}", "u", at(date(2010, 11, 1), index), ["i1"], stats=said)


def test_mean_and_entropy_by_hand() -> None:
    """Three fourths of one value and one of another; one value alone has no entropy."""
    seen = statistic("first_slot", {"2.0": 3, "6.0": 1})

    assert (seen.requests, seen.mean) == (4, 3.0)
    assert seen.entropy == pytest.approx(0.8113, abs=1e-4)
    assert statistic("x", {"0.5": 9}).entropy == 0
    assert statistic("x", {}).requests == 0


def test_a_week_is_counted_in_tenths_by_name() -> None:
    """A number that a request lacks does not count for it."""
    rows = [asked(0, first_slot=1, pruning_survival=0.52), asked(1, first_slot=3), asked(2)]
    seen = {one.name: one for one in statistics(counted(rows))}

    assert set(seen) == {"first_slot", "pruning_survival"}
    assert (seen["first_slot"].requests, seen["first_slot"].mean) == (2, 2.0)
    assert (seen["pruning_survival"].requests, seen["pruning_survival"].mean) == (1, 0.5)
