"""A container serves only what verifies, and follows the ledger without being replaced."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import container, registry
from serving.container import Follower
from serving.triton import canary, repository
from serving.triton.server import TritonServer, free_port
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.client import RecommendClient
from sidrec.errors import BundleError, ServingError, UsageError, VerdictError
from sidrec.release.promotion import promote
from tests.release_world import make_signed
from tests.serving.world import make_bundle


def promoted(folder: Path, *, newest: int = 0, first: bool = True) -> Bundle:
    """Return a bundle that was registered and that the ledger asks for."""
    bundle = make_bundle(folder / "made", name=f"b{newest}", newest=newest)
    verdict = folder / f"{bundle.bundle_id}.json"
    make_signed(bundle, verdict)
    registry.register(bundle.folder, verdict)
    held = registry.open_bundle(registry.bundle_folder(bundle.bundle_id))
    promote(held, registry.verdict_path(bundle.bundle_id), why="test", who="ann", first=first)
    return bundle


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts is a failure of the test."""
    monkeypatch.setattr("serving.container.until_signalled", threading.Event)
    monkeypatch.setattr(TritonServer, "start", lambda self: pytest.fail("a server was started"))


def serve(**changes: Any) -> None:
    values = {"host": "127.0.0.1", "grpc_port": free_port(), "metrics_port": free_port(), "instances": None}
    container.serve(**{**values, **changes})


@pytest.mark.usefixtures("no_server")
def test_an_altered_bundle_starts_no_server(tmp_path: Path) -> None:
    """One byte more in the shared registry, and the entry point refuses before anything serves."""
    bundle = promoted(tmp_path)
    file = next(path for path in registry.bundle_folder(bundle.bundle_id).iterdir() if path.suffix == ".parquet")
    file.write_bytes(file.read_bytes() + b"x")

    with pytest.raises(BundleError, match=file.name):
        serve()


@pytest.mark.usefixtures("no_server")
def test_a_verdict_by_another_key_starts_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster trusts the public key that it was given, whatever lies beside the bundle."""
    promoted(tmp_path)
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "other"))
    from sidrec.release import keys

    keys.signing_key()
    other = home.keys_dir() / "verify.pem"
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SIDREC_VERIFY_KEY", str(other))

    with pytest.raises(VerdictError):
        serve()


@pytest.mark.usefixtures("no_server")
def test_before_the_first_promotion_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is an error's, and a restart later finds what was promoted meanwhile."""
    assert container.main(["--grpc-port", str(free_port()), "--metrics-port", str(free_port())]) == 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_refused_revision_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    """A bad revision does not make every pod load it every five seconds; what serves, serves on."""
    promoted(tmp_path)
    clock, tried = Clock(), []

    def refuse() -> str:
        tried.append(clock.now)
        raise ServingError("it answers wrong")

    follower = Follower(refuse, clock=clock)
    for second in range(0, 120, 5):
        clock.now = second
        follower.look()

    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert pauses == [5, 10, 20, 40]


def test_another_decision_is_followed_at_once(tmp_path: Path) -> None:
    """A rollback does not wait for the pause of the revision that was refused."""
    promoted(tmp_path)
    clock, tried = Clock(), []

    def refuse() -> str:
        tried.append(clock.now)
        raise ServingError("it answers wrong")

    follower = Follower(refuse, clock=clock)
    for second in (0, 5, 15):
        clock.now = second
        follower.look()
    promoted(tmp_path, newest=50, first=False)
    clock.now = 16
    follower.look()

    assert tried == [0, 5, 15, 16]


def test_what_is_served_is_left_alone(tmp_path: Path) -> None:
    """No deployment where the repository serves what the ledger asks for."""
    promoted(tmp_path)
    repository.point_to(home.triton_repository_dir(), 1)

    assert Follower(lambda: pytest.fail("deployed")).look() is None


def test_a_probe_without_a_server_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The probe's exit status is the answer's, with the reason beside it."""
    assert canary.main([f"127.0.0.1:{free_port()}", "--timeout-s", "0.5"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_a_connection_age_is_whole_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value that Triton would misread is refused with the variable's name."""
    server = TritonServer(tmp_path, tmp_path, tmp_path / "log", 1, 2, host="0.0.0.0", metrics_host="0.0.0.0")
    monkeypatch.setenv("SIDREC_GRPC_CONNECTION_AGE_S", "60")
    command = server._command()
    monkeypatch.setenv("SIDREC_GRPC_CONNECTION_AGE_S", "1m")

    assert {"--grpc-max-connection-age=60000", "--metrics-address=0.0.0.0"} <= set(command)
    assert server.url == "127.0.0.1:1"
    assert any(option.startswith("--grpc-restricted-protocol=model-repository,") for option in command)
    with pytest.raises(UsageError, match="SIDREC_GRPC_CONNECTION_AGE_S"):
        server._command()


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A container's server with a real Triton, in a thread of this process; its address."""
    promoted(tmp_path)
    stopping, port = threading.Event(), free_port()
    monkeypatch.setattr("serving.container.until_signalled", lambda: stopping)
    monkeypatch.setattr("serving.container._FOLLOW_S", 0.5)
    thread = threading.Thread(target=lambda: serve(grpc_port=port))
    thread.start()
    try:
        assert canary.wait_for_port("127.0.0.1", port, timeout_s=60)
        yield f"127.0.0.1:{port}"
    finally:
        stopping.set()
        thread.join()


def test_a_promotion_is_followed_without_a_failed_request(running: str, tmp_path: Path) -> None:
    """The pod that serves revision 1 serves revision 2 once the ledger asks for it, and answers throughout."""
    revisions = set()
    with RecommendClient(running, timeout_s=5.0, retries=0) as client:
        client.recommend(history=["i1"])
        promoted(tmp_path, newest=50, first=False)
        deadline = time.monotonic() + 60
        while 2 not in revisions and time.monotonic() < deadline:
            revisions.add(int(client.recommend(history=["i1"]).model_version))

    assert revisions == {1, 2}
