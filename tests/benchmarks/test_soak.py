"""What a soak reports: slopes that can be worked by hand, and minutes of a real server."""

import pytest

from benchmarks import soak
from benchmarks.recover import SMALL


def test_a_slope_is_least_squares_with_students_interval() -> None:
    """Worked by hand: y = 1, 2, 4 has slope 1.5, residuals 1/6, -1/3, 1/6, standard error 1/sqrt(12); t(1) = 12.706."""
    found = soak.slope([1.0, 2.0, 4.0])

    assert found.per_minute == pytest.approx(1.5)
    assert found.high - 1.5 == pytest.approx(12.706 / 12**0.5, rel=1e-3)
    assert found.low == pytest.approx(3.0 - found.high)


def test_a_slope_needs_three_values() -> None:
    """Two points lie on a line whatever they are."""
    with pytest.raises(ValueError, match="seen 2"):
        soak.slope([1.0, 2.0])


@pytest.mark.slow
def test_a_soak_of_seconds_counts_answers_and_memory() -> None:
    """Four short minutes: answers in each, none failed, memory seen."""
    found = soak.soak(4, shape=SMALL, minute_s=1.0)

    assert len(found["minutes"]) == 4
    assert all(row["answers"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in found["minutes"])
    assert all(row["resident_mb"] > 100 for row in found["minutes"])
    assert found["failures"] == 0
