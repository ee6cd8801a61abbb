"""`sidrec serve --standby`: the first server dies, and callers of the gateway do not notice."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import registry
from serving.state import servers_of
from serving.triton.server import free_port
from sidrec.bundle import open_bundle
from sidrec.files import read_json
from sidrec.release.promotion import promote
from tests.chaos.conftest import CEILING_S
from tests.release_world import make_signed
from tests.serving.world import make_bundle
from tests.sidrec.cli.test_serving import promoted, sidrec

# A channel that was refused connects again within a second or two.
_RECONNECTED_S = 3.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose promoted bundle is served by two servers."""
    home = tmp_path / "home"
    promoted(tmp_path, home)
    sidrec(home, "serve", "--detach", "--standby", "--grpc-port", str(free_port()), "--gateway-port", str(free_port()))
    try:
        yield home
    finally:
        sidrec(home, "stop")


class HttpLoad:
    """Callers of the gateway in a closed loop; every failure is kept, and who answered."""

    def __init__(self, gateway: str) -> None:
        self.answers = 0
        self.failures: list[tuple[float, str]] = []
        self.bundles: list[str] = []
        self._url = f"{gateway}/v1/recommend"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._loop) for _ in range(4)]

    def _loop(self) -> None:
        body = json.dumps({"history": ["i3"], "k": 3}).encode()
        while not self._stop.is_set():
            request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=20) as response:
                    self.bundles.append(json.load(response)["bundle_id"])
                self.answers += 1
            except urllib.error.HTTPError as error:
                self.failures.append((time.monotonic(), f"{error.code} {error.read().decode()}"))
            time.sleep(0.01)

    def __enter__(self) -> "HttpLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def state(home: Path) -> dict[str, Any]:
    value: dict[str, Any] = read_json(home / "serving" / "state.json")
    return value


def wait_healed(home: Path, restarts: tuple[int, int]) -> None:
    deadline = time.monotonic() + CEILING_S
    while [(one["health"], one["restarts"]) for one in servers_of(state(home))] != [("ready", n) for n in restarts]:
        assert time.monotonic() < deadline, servers_of(state(home))
        time.sleep(0.1)


def test_two_servers_die_in_turn_and_no_request_fails(served: Path, tmp_path: Path) -> None:
    """Kill the first, let it heal, kill the second, deploy to both: only 200 is ever answered, by a live bundle."""
    first, second = servers_of(state(served))
    old = first["bundle_id"]
    assert first["grpc"] != second["grpc"]
    with HttpLoad(state(served)["gateway"]) as load:
        time.sleep(1.0)
        os.kill(first["triton_pid"], signal.SIGKILL)
        wait_healed(served, (1, 0))
        time.sleep(_RECONNECTED_S)
        os.kill(second["triton_pid"], signal.SIGKILL)
        wait_healed(served, (1, 1))
        bundle = make_bundle(tmp_path / "next", newest=50)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIDREC_HOME", str(served))
            make_signed(bundle, tmp_path / "next.json")
            registry.register(bundle.folder, tmp_path / "next.json")
            found = open_bundle(registry.bundle_folder(bundle.bundle_id))
            promote(found, registry.verdict_path(bundle.bundle_id), why="test", who="ann", first=False)
        said = sidrec(served, "deploy")
        time.sleep(1.5)

    both = servers_of(state(served))
    assert load.failures == []
    assert load.answers > 50
    assert set(load.bundles) == {old, bundle.bundle_id}
    assert [(one["revision"], one["bundle_id"]) for one in both] == [(2, bundle.bundle_id)] * 2
    assert said["golden"] == 12
    assert all(one["grpc"] in said["sentence"] for one in both)
