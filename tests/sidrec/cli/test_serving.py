"""`sidrec serve` and what one does with it, as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import registry
from serving.state import process_started
from serving.triton.server import TritonServer, clear_shared_memory, free_port
from sidrec.bundle import Bundle, open_bundle
from sidrec.release.promotion import promote
from tests.release_world import make_signed
from tests.serving.world import make_bundle

ROOT = Path(__file__).parents[3]


def sidrec(home: Path, *arguments: str, expect: int = 0) -> dict[str, Any]:
    """Return what a command prints with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "sidrec.cli", *arguments, "--json"],
        cwd=ROOT,
        env={**os.environ, "SIDREC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def promoted(folder: Path, home: Path) -> Bundle:
    """Register and promote a bundle in `home`."""
    bundle = make_bundle(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(home))
        make_signed(bundle, folder / "verdict.json")
        registry.register(bundle.folder, folder / "verdict.json")
        registered = open_bundle(registry.bundle_folder(bundle.bundle_id))
        promote(registered, registry.verdict_path(bundle.bundle_id), why="test", who="ann", first=True)
    return bundle


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Bundle, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("serve")
    home = folder / "home"
    bundle = promoted(folder, home)
    ports = ["--grpc-port", str(free_port()), "--gateway-port", str(free_port())]
    state = sidrec(home, "serve", "--detach", *ports)
    try:
        yield home, bundle, state
    finally:
        sidrec(home, "stop")


def test_serve_says_where_it_answers(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """The first line comes after a real answer, and the ledger knows what went live."""
    home, bundle, state = served

    assert (state["health"], state["revision"], state["bundle_id"]) == ("ready", 1, bundle.bundle_id)
    assert [row["action"] for row in sidrec(home, "ledger", "show")["rows"]] == ["promote", "live"]
    assert sidrec(home, "status")["serving"]["state"] == "running"


def test_recommend_shows_titles(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """Ids, titles, scores and who answered."""
    home, bundle, _ = served

    answer = sidrec(home, "recommend", "--history", "i5, i6", "-k", "3", "--exclude-seen")

    assert [item["title"] for item in answer["items"]] == ["TITLE 0", "TITLE 1", "TITLE 2"]
    assert [item["title"] for item in answer["history"]] == ["TITLE 5", "TITLE 6"]
    assert (answer["source"], answer["bundle_id"], answer["revision"]) == ("model", bundle.bundle_id, 1)


def test_recommend_refuses_what_the_server_refuses(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """The caller's fault is exit 2 with the reason."""
    home, _, _ = served

    assert "K is 500" in sidrec(home, "recommend", "-k", "500", expect=2)["message"]


def test_a_second_server_of_one_home_is_refused(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """The running one is named."""
    home, _, state = served

    assert state["grpc"] in sidrec(home, "serve", expect=2)["message"]


def test_deploying_what_is_live_changes_nothing(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """The same revision again: asked again, recorded once."""
    home, _, _ = served

    assert sidrec(home, "deploy")["live"]
    assert [row["action"] for row in sidrec(home, "ledger", "show")["rows"]] == ["promote", "live"]


def test_without_a_promotion_serve_says_what_to_do(tmp_path: Path) -> None:
    """Nothing promoted, nothing running: each command names the next one."""
    assert "sidrec promote" in sidrec(tmp_path, "serve", expect=1)["next"]
    assert "sidrec serve" in sidrec(tmp_path, "recommend", expect=1)["next"]
    assert sidrec(tmp_path, "stop") == {"stopped": False, "pid": None}


def test_a_killed_server_leaves_no_process_behind(served: tuple[Path, Bundle, dict[str, Any]]) -> None:
    """`kill -9` of serve: Triton, its stub, the gateway and its worker go with it; `stop` finds nothing to stop.

    The last test of the module's server.
    """
    home, _, state = served
    family = processes_of(home)
    os.kill(state["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and processes_of(home):
        time.sleep(0.2)

    clear_shared_memory(TritonServer(home, home, home, 0, 0).shm_prefix)

    assert len(family) >= 4
    assert processes_of(home) == []
    assert process_started(state["triton_pid"]) is None
    assert sidrec(home, "stop")["stopped"] is False
    assert sidrec(home, "status")["serving"]["state"] == "stopped"


def processes_of(home: Path) -> list[str]:
    """Command lines of the live processes whose SIDREC_HOME is `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"SIDREC_HOME={home}\0".encode() in environment + b"\0":
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
