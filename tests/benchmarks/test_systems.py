"""Every system is asked through a server of its own, and answers as its engine does."""

import pytest

from benchmarks import systems


@pytest.mark.slow
def test_every_system_has_its_two_rows() -> None:
    """None is judged; each is compared with the first system."""
    rows = systems.run(quick=True)["results"]

    assert [row["name"].split(",")[0] for row in rows[::2]] == ["S²GR", "REG4Rec", "SIDReasoner"]
    assert [row["name"][-3:] for row in rows] == ["p50", "p99"] * 3
    assert all(row["goal"] is None and row["ours"] > 0 for row in rows)
    assert rows[0]["ratio"] == rows[1]["ratio"] == 1
