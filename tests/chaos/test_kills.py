"""Stub and server are killed under load: answers come back, and the log lacks at most what was buffered."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from serving.supervisor import Supervisor
from sidrec import exposure, home
from sidrec.client import UnavailableError
from tests.chaos.conftest import CEILING_S
from tests.chaos.load import Load

Serve = Callable[..., AbstractContextManager[Supervisor]]

_FLUSH_S = 0.2
# A flush that has begun is over after this, on a machine that does other things too.
_WRITTEN_S = 3.0


@pytest.mark.parametrize("victim", ["stub", "server"])
def test_a_kill_under_load_heals_and_loses_only_the_buffer(serve: Serve, victim: str) -> None:
    """Answers are right before and after; each answer older than the unflushed buffer is in the log."""
    asked = {"history": ["i3"], "k": 5}
    with serve(exposure_flush_s=_FLUSH_S) as supervisor:
        with Load(supervisor.server.url, ask=lambda n: asked | {"context": {"request_id": f"r{n}"}}) as load:
            load.wait_answers(200)
            time.sleep(_WRITTEN_S)
            assert supervisor.server.process is not None
            [pid] = supervisor.server.stubs() if victim == "stub" else [supervisor.server.process.pid]
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            while not load.failures:
                assert time.monotonic() < killed + CEILING_S
                time.sleep(0.01)
            healed = load.wait_answers(100, seconds=CEILING_S)
            assert supervisor.restarts == 1
        assert {one.answer.item_ids for one in load.answers} == {tuple(f"i{n}" for n in range(5))}
    logged = set(exposure.read(home.exposures_dir())["request_id"])
    missing = [one for one in load.answers if one.answer.request_id not in logged]

    assert healed - killed < CEILING_S
    assert all(killed - _WRITTEN_S < one.at < killed + 1.5 for one in missing)


def test_a_stopped_server_loses_nothing(serve: Serve) -> None:
    """SIGTERM under load: newcomers are told that asking again helps, and every answer given is in the log."""
    with contextlib.ExitStack() as stack:
        # Left last: the load goes on while the server drains.
        with serve(exposure_flush_s=60.0) as supervisor:
            load = Load(supervisor.server.url, clients=8, ask=lambda n: {"context": {"request_id": f"r{n}"}})
            stack.enter_context(load)
            load.wait_answers(200)
            assert exposure.read(home.exposures_dir()).is_empty()
        logged = set(exposure.read(home.exposures_dir())["request_id"])

    assert load.failures
    assert {str(error) for _, error in load.failures if not isinstance(error, UnavailableError)} == set()
    assert {one.answer.request_id for one in load.answers} <= logged


def test_one_of_two_instances_dies_and_both_come_back(serve: Serve) -> None:
    """Each instance is a process of its own; one that is dead is as conclusive as all of them."""
    with serve(instances=2) as supervisor:
        both = supervisor.server.stubs()
        os.kill(min(both), signal.SIGKILL)
        with Load(supervisor.server.url) as load:
            deadline = time.monotonic() + CEILING_S
            while supervisor.restarts == 0 or len(supervisor.server.stubs()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            load.wait_answers(20)

    assert len(both) == 2
