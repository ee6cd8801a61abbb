"""A dead stub or a dead server heals; a second server of one home, a taken port, an empty home are refused."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.state import clear_state, process_started, read_state, state_path, write_state
from serving.supervisor import Supervisor
from serving.triton.server import free_port
from sidrec import home
from sidrec.client import RecommendClient
from sidrec.errors import ServingError, UsageError
from sidrec.files import read_json, write_json_atomic
from tests.serving.conftest import publish
from tests.serving.world import make_bundle, make_revision


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A started supervisor, watched by this thread's helper until the test ends."""
    bundle = make_bundle(tmp_path / "made")
    publish(home.triton_repository_dir(), make_revision(1, bundle), bundle)
    one = Supervisor(grpc_port=free_port())
    try:
        one.start()
        yield one
    finally:
        one.stop()


def test_what_is_killed_is_healed(supervisor: Supervisor) -> None:
    """Stub, then server: killed, noticed, restarted, answering, each in a minute, and said in the state file."""
    for number, victim in enumerate(("stub", "server"), start=1):
        assert supervisor.server.process is not None
        old = supervisor.server.process.pid
        os.kill(min(supervisor.server.stubs()) if victim == "stub" else old, signal.SIGKILL)
        started = time.monotonic()
        reason = None
        while reason is None and time.monotonic() - started < 30:
            reason = supervisor.check()
        during = read_state()
        assert reason is not None

        supervisor.heal(reason, threading.Event())
        after = read_state()

        assert ("stub is dead" in reason) == (victim == "stub")
        assert time.monotonic() - started < 60
        assert during is not None
        assert after is not None
        assert (during["restarts"], after["restarts"], after["health"]) == (number - 1, number, "ready")
        assert after["triton_pid"] != old
        with RecommendClient(supervisor.server.url) as client:
            assert client.recommend(history=["i1"]).source == "model"


def test_an_empty_repository_is_refused(tmp_path: Path) -> None:
    """Nothing was promoted: the error says what to do, and no server starts."""
    with pytest.raises(ServingError, match="nothing was promoted") as caught:
        Supervisor(grpc_port=free_port()).start()

    assert "sidrec promote" in str(caught.value.next_step)
    assert read_state() is None


def test_a_taken_port_is_a_usage_error() -> None:
    """The option to change is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be used") as caught:
            Supervisor(grpc_port=taken.getsockname()[1])

    assert caught.value.next_step == "choose another one: --grpc-port"


def test_a_dead_servers_state_does_not_count() -> None:
    """A file left by a killed process, or whose process id was given to another one, means no server runs."""
    write_state({"health": "ready"})
    alive = read_state()
    value = read_json(state_path())
    write_json_atomic(state_path(), value | {"pid_started": value["pid_started"] - 1})
    recycled = read_state()
    write_json_atomic(state_path(), value | {"pid": 2**22 + 1})
    gone = read_state()
    clear_state()

    assert alive is not None
    assert alive["health"] == "ready"
    assert recycled is None
    assert gone is None
    assert read_state() is None
    assert process_started(os.getpid()) == value["pid_started"]
