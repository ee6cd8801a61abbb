"""Two real servers behind one gateway: either may be killed under load, and no caller notices."""

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.gateway.process import GatewayProcess
from serving.triton.server import TritonServer, free_port, inference_count
from sidrec.client import RecommendClient
from tests.serving.conftest import publish, wait_answer
from tests.serving.gateway.conftest import call, running
from tests.serving.world import make_bundle, make_revision

CALLERS = 8


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, TritonServer]]:
    folder = tmp_path_factory.mktemp("two")
    bundle = make_bundle(folder)
    publish(folder / "repository", make_revision(1, bundle), bundle)
    first, second = (
        TritonServer(folder / "repository", folder / name, folder / f"{name}.log", free_port(), free_port())
        for name in ("first", "second")
    )
    try:
        for server in (first, second):
            server.start()
        for server in (first, second):
            ready(server)
        yield first, second
    finally:
        first.stop()
        second.stop()


def ready(server: TritonServer) -> None:
    with RecommendClient(server.url, retries=0) as client:
        wait_answer(server.running, client)


class Load:
    """Eight callers, each with one request in flight, until told to stop."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.answers: list[tuple[int, str]] = []
        self._gateway = gateway
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            number = next(self._numbers)
            self.answers.append(call(self._gateway, "/v1/recommend", {"history": [f"i{number % 50}"], "k": 5}))

    def wait_more(self, number: int) -> None:
        """Return after this many more answers, or ten seconds."""
        deadline = time.monotonic() + 10
        enough = len(self.answers) + number
        while len(self.answers) < enough and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self) -> list[tuple[int, str]]:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        return self.answers


def test_either_server_may_be_killed_under_load(two: tuple[TritonServer, TritonServer], tmp_path: Path) -> None:
    """Kill -9 the one that answers, start it again, kill the other one: every request has its five items."""
    first, second = two
    with running(tmp_path, f"{first.url},{second.url}") as gateway:
        alone = inference_count(second.url)
        load = Load(gateway)
        try:
            load.wait_more(100)
            unused = inference_count(second.url) == alone
            first.kill()
            load.wait_more(200)
            took_over = inference_count(second.url) - alone
            first.start()
            ready(first)
            load.wait_more(50)
            second.kill()
            load.wait_more(200)
            answered = inference_count(first.url)
        finally:
            answers = load.stop()
        metrics = call(gateway, "/metrics")[1]

    failed = [answer for answer in answers if answer[0] != 200]
    assert not failed
    assert all(len(json.loads(text)["items"]) == 5 for _, text in answers)
    assert unused
    assert took_over >= 200
    assert answered >= 200
    assert re.search(r'sidrec_gateway_retries_total\{moved="true",status="UNAVAILABLE"\} [1-9]', metrics)


def test_with_both_gone_the_gateway_says_so_and_comes_back(
    two: tuple[TritonServer, TritonServer], tmp_path: Path
) -> None:
    """503 and not ready while nobody answers; ready again by itself once one does."""
    first, second = two
    for server in two:
        if not server.running():
            server.start()
        ready(server)
    with running(tmp_path, f"{first.url},{second.url}") as gateway:
        first.kill()
        second.kill()
        gone = call(gateway, "/v1/recommend", {})
        not_ready = call(gateway, "/readyz")[0]
        second.start()
        ready(second)
        deadline = time.monotonic() + 10
        while call(gateway, "/readyz")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        back = call(gateway, "/v1/recommend", {})

    assert (gone[0], json.loads(gone[1])["error"]) == (503, "unavailable")
    assert not_ready == 503
    assert back[0] == 200
