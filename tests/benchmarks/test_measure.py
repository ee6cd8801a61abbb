"""A time counts only beside an equal output, and a row says whether its goal is met."""

import gc
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks import measure
from sidrec.errors import CheckFailedError


def busy(seconds: float, said: list[str], name: str) -> Callable[[], str]:
    """Return what takes this much CPU time, and says when it ran."""

    def work() -> str:
        said.append(name)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return name

    return work


def test_sides_take_turns_and_the_ratio_is_of_medians() -> None:
    """The peer at ten times our time meets 5 and misses 20."""
    said: list[str] = []
    ours, peer = busy(0.004, said, "ours"), busy(0.04, said, "peer")
    easy = measure.compare("easy", ours, peer, check="{} {}".format, goal=5, repeats=3)
    hard = measure.compare("hard", ours, peer, check="{} {}".format, goal=20, repeats=3)

    assert said == ["ours", "peer"] * 6
    assert easy.notes == "ours peer; 3 repeats"
    assert (easy.met, hard.met, easy.goal) == (True, False, ">= 5")
    assert easy.ratio == pytest.approx(easy.peer / easy.ours)  # type: ignore[operator]


def test_an_unequal_output_is_never_timed() -> None:
    """Where the check refuses, each side ran once; the row has no time, misses its goal and says why."""
    said: list[str] = []

    def refuse(ours: str, peer: str) -> str:
        raise CheckFailedError(f"{ours} is not {peer}")

    row = measure.compare("x", busy(0, said, "ours"), busy(0, said, "peer"), check=refuse, goal=1, repeats=9)

    assert said == ["ours", "peer"]
    assert (row.ours, row.peer, row.ratio, row.met, row.notes) == (None, None, None, False, "ours is not peer")


def test_within_lets_a_lower_value_through_and_no_higher_one() -> None:
    """Half a percent is the line, from above alone."""
    assert measure.within(0.5, 1.0, "error", tolerance=0.005) == "error 0.5 (peer 1, -50.00%)"
    assert measure.within(1.004, 1.0, "error", tolerance=0.005)
    with pytest.raises(CheckFailedError, match=r"error: ours 1.006, peer 1, \+0.60%"):
        measure.within(1.006, 1.0, "error", tolerance=0.005)


def test_spread_worked_by_hand() -> None:
    """Quartiles of 1..9 are 3 and 7 about the median 5; of two values the range counts."""
    assert measure.spread([float(value) for value in range(1, 10)]) == pytest.approx(4 / 5)
    assert measure.spread([1.0, 3.0]) == pytest.approx(1.0)


def test_a_bounded_figure_is_met_at_its_bound() -> None:
    """64 at most: 64 is met, 64.1 is not, and no goal judges nothing."""
    rows = [measure.bounded("m", value, goal=64, unit="MB", notes="") for value in (64.0, 64.1)]

    assert [row.met for row in rows] == [True, False]
    assert measure.bounded("m", 1.0, goal=None, unit="MB", notes="").met is None


def test_a_report_runs_on_one_thread_and_has_the_keys_that_readers_rely_on() -> None:
    """Machine with load, commit, results; torch has one thread inside and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []

    def rows() -> Iterator[measure.Row]:
        seen.append(torch.get_num_threads())
        yield measure.bounded("m", 1.0, goal=2, unit="MB", notes="", spread=0.5)

    try:
        found = measure.report(rows)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
    assert found.keys() == {"machine", "commit", "results"}
    assert {"cpu", "cores", "load_before", "load_after"} <= found["machine"].keys()
    assert {"name", "ours", "peer", "ratio", "goal", "met", "spread"} <= found["results"][0].keys()
    assert "spread above 25%" in found["results"][0]["notes"]


def test_a_settled_heap_is_as_it_was_afterwards() -> None:
    """What was there is not looked at inside, and is again behind; one within another changes nothing."""
    before: list[object] = [[]]
    others_froze = gc.get_freeze_count()
    gc.unfreeze()
    try:
        with measure.settled_heap():
            between: list[object] = [[]]
            with measure.settled_heap():
                inner = _collected(before), _collected(between)
            outer = _collected(before), _collected(between)
        assert inner == outer == (False, True)
        assert _collected(before)
        assert gc.get_freeze_count() == 0
    finally:
        if others_froze:
            gc.freeze()


def _collected(value: list[object]) -> bool:
    """Return whether collections look at a list; counts of frozen objects also fall when one of them dies."""
    return any(seen is value for seen in gc.get_objects())
