"""The kills are real, and what counts as recovered is a good answer."""

import pytest

from benchmarks import recover


@pytest.mark.slow
def test_both_kills_are_measured_and_small_sizes_judge_nothing() -> None:
    """A stub and a server are killed once each; both come back, and a start takes CPU time."""
    rows = recover.run(quick=True)["results"]

    assert [row["name"] for row in rows] == ["recover, stub killed", "recover, server killed"]
    assert all(0.5 < row["ours"] < 60 for row in rows)
    assert all((row["goal"], row["met"]) == (None, None) for row in rows)
    assert all("s of CPU time" in row["notes"] for row in rows)
