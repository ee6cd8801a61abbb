"""One real Triton server for the tests that only ask it things; tests that hurt a server start their own."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.triton import repository
from serving.triton.server import TritonServer, free_port
from sidrec.bundle import Bundle
from sidrec.client import RecommendClient
from sidrec.errors import ServingError
from sidrec.release.revision import BundleRef, Revision
from tests.serving.world import make_bundle, make_revision


@dataclass(frozen=True)
class Live:
    """A running server and what it serves."""

    server: TritonServer
    client: RecommendClient
    revision: Revision
    bundles: dict[str, Bundle]


def publish(root: Path, revision: Revision, *bundles: Bundle, instances: int | None = None) -> None:
    """Write a revision into a repository and point the config to it."""
    folders = {bundle.bundle_id: bundle.folder for bundle in bundles}

    def export(ref: BundleRef, folder: Path, verdict: Path) -> None:
        shutil.copytree(folders[ref.bundle_id], folder)
        verdict.write_text("{}")

    repository.write_version(root, revision, export, lambda bundle, verdict: None)
    repository.point_to(root, revision.revision, instances=instances)


def wait_answer(running: Callable[[], bool], client: RecommendClient, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.recommend(k=1, context={"canary": True}, timeout_s=1)
            return
        except ServingError:
            if time.monotonic() > deadline or not running():
                raise
            time.sleep(0.1)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    control, treatment = make_bundle(folder, name="a"), make_bundle(folder, name="b", newest=50)
    revision = make_revision(1, control, treatment)
    publish(folder / "repository", revision, control, treatment)
    server = TritonServer(folder / "repository", folder / "home", folder / "log", free_port(), free_port())
    server.start()
    try:
        client = RecommendClient(server.url, timeout_s=10)
        wait_answer(server.running, client)
        yield Live(server, client, revision, {"control": control, "treatment": treatment})
        client.close()
    finally:
        server.stop()
