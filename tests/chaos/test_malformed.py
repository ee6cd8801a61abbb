"""Whatever is sent, the server lives or heals, its neighbours' answers are right, and it does not grow."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from serving.supervisor import Supervisor
from tests.chaos import malformed
from tests.chaos.conftest import CEILING_S
from tests.chaos.load import Load

Serve = Callable[..., AbstractContextManager[Supervisor]]

_HUGE_MB = 60
_ROOM = [("grpc.max_send_message_length", 2**30), ("grpc.max_receive_message_length", 2**30)]
_REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


@pytest.fixture
def infer(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Any], str]]:
    """Return what sends a raw message and returns the status it got."""
    channels: dict[str, grpc.Channel] = {}

    def send(url: str, message: Any) -> str:
        channel = channels.setdefault(url, grpc.insecure_channel(url, options=_ROOM))
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
        except grpc.RpcError as error:
            return "TRACEBACK" if "Traceback" in error.details() else str(error.code().name)
        return "OK"

    yield send
    for channel in channels.values():
        channel.close()


def resident_mb(supervisor: Supervisor) -> float:
    """Return the memory that the server and its stubs hold."""
    assert supervisor.server.process is not None
    pids = {supervisor.server.process.pid} | supervisor.server.stubs()
    lines = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in pids]
    return sum(int(line.split()[1]) for one in lines for line in one if line.startswith("VmRSS")) / 1024


def shared_mb(supervisor: Supervisor) -> float:
    """Return the shared memory that the server holds."""
    regions = Path("/dev/shm").glob(f"{supervisor.server.shm_prefix}*")
    return sum(region.stat().st_size for region in regions) / 2**20


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_harm_nobody(serve: Serve, infer: Callable[[str, Any], str], count: int) -> None:
    """Hundreds at random from eight callers, 60 MB strings between them: no restart, no growth, neighbours right."""
    with serve() as supervisor:
        url = supervisor.server.url

        def storm(number: int, seed: int) -> dict[str, int]:
            seen: dict[str, int] = {}
            lock = threading.Lock()

            def one(index: int) -> None:
                status = infer(url, malformed.malformed(random.Random(seed * 10**6 + index)))
                with lock:
                    seen[status] = seen.get(status, 0) + 1

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, range(number)))
            return seen

        def huge() -> tuple[float, float]:
            """Send three huge strings and return the memory that they leave behind."""
            refused.update(infer(url, malformed.huge(_HUGE_MB)) for _ in range(3))
            return resident_mb(supervisor), shared_mb(supervisor)

        refused: set[str] = set()
        # What is allocated once is allocated before the first reading.
        after_huge = huge()
        storm(200, seed=1)
        before = resident_mb(supervisor)
        with Load(url, clients=2, ask=lambda n: {"history": ["i3"], "k": 1 + n % 7}) as load:
            seen = storm(count, seed=2)
            grown = resident_mb(supervisor) - before
            after_more = huge()
            load.wait_answers(10)

    assert supervisor.restarts == 0
    assert set(seen) <= _REFUSALS | {"OK"}  # at the edge of what is right some are answered
    assert sum(seen.values()) - seen.get("OK", 0) > count * 0.7
    assert refused <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert load.failures == []
    for one in load.answers:
        assert one.answer.item_ids == tuple(f"i{n}" for n in range(len(one.answer.item_ids)))
    assert grown < 30
    # Triton keeps a few huge messages for reuse, and no more of them however many come.
    assert after_more[0] - before < 10 * _HUGE_MB
    assert after_more[1] <= after_huge[1]


def test_shapes_that_overflow_are_refused_or_healed(serve: Serve, infer: Callable[[str, Any], str]) -> None:
    """Each kills a stub of this server at worst; the supervisor has it answer again every time."""
    with serve() as supervisor:
        url = supervisor.server.url
        for message in malformed.overflowing():
            before = supervisor.restarts
            assert infer(url, message) != "OK"
            time.sleep(1.5)  # a dead stub is noticed within a beat
            deadline = time.monotonic() + CEILING_S
            while infer(url, malformed.sound()) != "OK":
                assert time.monotonic() < deadline, f"unhealed after {message.inputs}"
                time.sleep(0.2)
            assert supervisor.restarts <= before + 1
