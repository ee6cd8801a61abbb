"""When a server has lost a stub: its children are real processes, of which some have died and are not waited for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import supervisor
from serving.triton import repository
from serving.triton.canary import DeadStubError
from serving.triton.server import TritonServer, free_port
from sidrec.errors import ServingError

PARENT = """
import subprocess, sys
living, dead = int(sys.argv[1]), int(sys.argv[2])
for _ in range(living):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
for _ in range(dead):
    subprocess.Popen([sys.executable, "-c", ""])
sys.stdin.read()
"""

Children = Callable[[int, int, int], TritonServer]


@pytest.fixture
def server_with(tmp_path: Path) -> Iterator[Children]:
    started: list[subprocess.Popen[bytes]] = []

    def make(instances: int, living: int, dead: int) -> TritonServer:
        (tmp_path / "repository" / "recommend").mkdir(parents=True)
        repository.point_to(tmp_path / "repository", 1, instances=instances)
        server = TritonServer(tmp_path / "repository", tmp_path / "home", tmp_path / "log", 1, 2)
        server.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(living), str(dead)], stdin=subprocess.PIPE, process_group=0
        )
        started.append(server.process)
        deadline = time.monotonic() + 20
        while len(server.stubs()) < living + dead or len(server._zombies()) < dead:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return server

    yield make
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("instances", "living", "dead", "lost"),
    [
        (1, 1, 0, False),
        (1, 0, 1, True),
        (2, 1, 1, True),
        (1, 1, 1, False),  # one that refused its revision, or was unloaded, beside the one that answers
        (2, 2, 1, False),
        (2, 3, 1, False),  # two of the old revision, one of the next that is being loaded, one that is gone
    ],
)
def test_a_stub_is_lost_where_fewer_live_than_there_should_be(
    server_with: Children, instances: int, living: int, dead: int, lost: bool
) -> None:
    assert server_with(instances, living, dead).lost_a_stub() == lost


@pytest.mark.parametrize(
    ("living", "said"), [(0, ["its Python stub is dead"]), (1, [None, None, "no answer: the stub is dead"])]
)
def test_a_canary_that_an_old_stub_failed_is_asked_again(
    server_with: Children, monkeypatch: pytest.MonkeyPatch, living: int, said: list[str | None]
) -> None:
    """With the next revision's stub alive it is no reason to restart, before it has failed again and again."""

    def dead(url: str, *, timeout_s: float) -> None:
        raise DeadStubError("the stub is dead")

    def none(url: str) -> int:
        raise ServingError("no answer")

    monkeypatch.setattr(supervisor, "ask_canary", dead)
    monkeypatch.setattr(supervisor, "inference_count", none)
    watcher = supervisor.Supervisor(grpc_port=free_port())
    watcher.server = server_with(1, living, 1)

    assert [watcher.check() for _ in said] == said
