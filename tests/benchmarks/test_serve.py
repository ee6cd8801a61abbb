"""What serving is measured by counts what it says; and the whole of it runs on real doors."""

import os
import subprocess
import sys
import time
from threading import Lock

import pytest

from benchmarks import load as load_module
from benchmarks import serve
from benchmarks.load import Load, Meter, closed_loop, open_loop, percentile, undisturbed
from benchmarks.measure import Row
from sidrec.errors import CheckFailedError

BURN = "import time\nwhile time.process_time() < 1.5: pass"


def burner() -> subprocess.Popen[bytes]:
    """A process of a group of its own that uses 1.5 s of a core."""
    return subprocess.Popen([sys.executable, "-c", BURN], process_group=0)


def test_a_closed_loop_asks_each_number_once_with_so_many_in_flight() -> None:
    """Twenty requests of 20 ms by four callers: five turns, never a fifth one at a time."""
    asked: list[int] = []
    flying, most, lock = [0], [0], Lock()

    def ask(number: int) -> None:
        with lock:
            asked.append(number)
            flying[0] += 1
            most[0] = max(most[0], flying[0])
        time.sleep(0.02)
        with lock:
            flying[0] -= 1

    load = closed_loop(ask, callers=4, count=20, groups=())

    assert sorted(asked) == list(range(20))
    assert most == [4]
    assert len(load.latencies_ms) == 20
    assert load.seconds >= 0.1
    assert load.per_second == pytest.approx(20 / load.seconds)


def test_an_open_loop_counts_from_when_a_caller_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers come faster than one thread can ask: the last one waited for all before it, and it counts."""
    monkeypatch.setattr(load_module, "_OPEN_CALLERS", 1)

    load = open_loop(lambda number: time.sleep(0.02), rate=1000, count=30, groups=())

    assert max(load.latencies_ms) > 400
    assert load.percentile(50) > 200


def test_callers_of_an_open_loop_do_not_wait_for_one_another() -> None:
    """Twenty at once on a server that takes 200 ms for each but many at a time: all done in about that time."""
    started = time.monotonic()
    open_loop(lambda number: time.sleep(0.2), rate=1000, count=20, groups=())

    assert time.monotonic() - started < 2


def test_a_failed_request_fails_the_load() -> None:
    """A wrong answer is not a fast one."""

    def ask(number: int) -> None:
        if number == 7:
            raise CheckFailedError("wrong")

    for loop in (
        lambda: closed_loop(ask, callers=2, count=20, groups=()),
        lambda: open_loop(ask, rate=1000, count=20, groups=()),
    ):
        with pytest.raises(CheckFailedError):
            loop()


def test_a_group_s_cpu_time_is_the_servers_and_not_others() -> None:
    """A process that uses 1.5 s of a core: named as the server it is the server's, unnamed it is others'."""
    process = burner()
    named, unnamed = Meter([process.pid]), Meter([])
    while (read := named.read())[1] < 0.8 and process.poll() is None:
        time.sleep(0.1)
    _, nothing, unnamed_others = unnamed.read()
    process.wait()

    wall, server_cpu_s, named_others = read
    assert server_cpu_s > 0.2
    assert nothing == 0
    assert unnamed_others - named_others == pytest.approx(server_cpu_s / wall / (os.cpu_count() or 1), abs=0.1)


def test_percentiles_are_values_that_were_met() -> None:
    """Of 1..100 the 50th is 50 and the 99th is 99; of one value it is that one."""
    values = [float(value) for value in range(100, 0, -1)]

    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([3.0], 99) == 3.0
    assert Load((1.0, 2.0), 0.5, 0.25, 0.0).per_second == 4
    assert Load((1.0, 2.0), 0.5, 0.25, 0.0).per_cpu_second == 8


@pytest.mark.parametrize(("others", "met", "word"), [(0.05, True, "5%"), (0.11, None, "void"), (1.0, None, "void")])
def test_a_row_that_others_disturbed_decides_nothing(others: float, met: bool | None, word: str) -> None:
    """Up to a tenth of the machine the verdict stands; beyond it there is none, and the row says why."""
    row = undisturbed(Row("r", 1.0, None, None, "<= 2", True, 0.0, "ms", "notes"), others)

    assert row.met is met
    assert row.goal == "<= 2"
    assert word in row.notes


@pytest.mark.slow
def test_all_of_it_runs_on_real_doors() -> None:
    """Quick sizes: every row has a number, none a verdict, and all answers were the engine's."""
    rows = {row["name"]: row for row in serve.run(quick=True)["results"]}

    assert len(rows) == 12
    assert all(row["ours"] is not None and row["met"] is None for row in rows.values())
    assert rows["requests a second, 32 callers, 1 worker"]["ours"] > 0
    assert "engine" in rows["server over the engine, 1 caller, p50"]["notes"]


@pytest.mark.slow
def test_another_answer_than_the_engines_is_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a door to answer by other beams, the run would end there."""
    honest = serve.Recommender.recommend

    def narrower(self: serve.Recommender, requests: list[serve.Request]) -> list[serve.Answer]:
        return honest(self, requests, beam_width=2)

    monkeypatch.setattr(serve.Recommender, "recommend", narrower)

    with pytest.raises(CheckFailedError, match="the engine"):
        serve.run(quick=True)
