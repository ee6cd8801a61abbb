"""The running server follows the ledger: no failed request on the way, and no way without a verdict."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import registry
from serving.deploy import confirm_live, deploy, prepare
from serving.drill import drill
from serving.supervisor import Supervisor
from serving.triton import repository
from serving.triton.server import free_port
from sidrec import home
from sidrec.bundle import Bundle, write_bundle
from sidrec.client import RecommendClient
from sidrec.errors import BundleError, ServingError, SidrecError, VerdictError
from sidrec.release.ledger import Ledger
from sidrec.release.promotion import promote, rollback
from tests.release_world import make_signed
from tests.serving.world import make_bundle


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    """Two registered bundles whose most popular items differ."""
    made = [make_bundle(tmp_path / "made", name=f"b{newest}", newest=newest) for newest in (0, 50)]
    for bundle in made:
        register(bundle, tmp_path)
    return made


def register(bundle: Bundle, folder: Path) -> None:
    path = folder / f"{bundle.bundle_id}.json"
    make_signed(bundle, path)
    registry.register(bundle.folder, path)


def ask_for(bundle: Bundle, *, first: bool = False) -> None:
    folder, verdict = registry.bundle_folder(bundle.bundle_id), registry.verdict_path(bundle.bundle_id)
    promote(registry.open_bundle(folder), verdict, why="test", who="ann", first=first)


@pytest.fixture
def served(bundles: list[Bundle]) -> Iterator[Supervisor]:
    """The first bundle, live."""
    ask_for(bundles[0], first=True)
    revision = prepare(Ledger())
    repository.point_to(home.triton_repository_dir(), revision.revision)
    supervisor = Supervisor(grpc_port=free_port())
    try:
        supervisor.start()
        confirm_live(revision, urls=[supervisor.server.url], who="test")
        yield supervisor
    finally:
        supervisor.stop()


class Load:
    """Four clients that never stop asking; every answer and every failure is kept."""

    def __init__(self, url: str) -> None:
        self.failures: list[str] = []
        self.revisions: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        with RecommendClient(self._url, timeout_s=20, retries=0) as client:
            while not self._stop.is_set():
                try:
                    self.revisions.append(client.recommend(history=["i3"]).model_version)
                except SidrecError as error:
                    self.failures.append(error.message)
                time.sleep(0.005)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def broken_bundle(sound: Bundle, folder: Path) -> Bundle:
    """Return a registered bundle whose digests hold around weights that no model can read."""
    parts = {name: sound.folder / name for name in sound.manifest["files"]}
    parts["weights.safetensors"] = folder / "broken"
    parts["weights.safetensors"].write_bytes(b"not weights")
    broken = write_bundle(folder / "broken-bundle", parts, {})
    register(broken, folder)
    return broken


def test_revisions_change_under_load_without_a_failed_request(
    served: Supervisor, bundles: list[Bundle], tmp_path: Path
) -> None:
    """Promote, roll back, a bundle that cannot load: the ledger is followed where it can be; nobody sees an error."""
    with Load(served.server.url) as load, RecommendClient(served.server.url) as client:
        before = client.recommend(history=["i3"], k=1)
        ask_for(bundles[1])
        second = deploy(who="ann")
        between = client.recommend(history=["i3"], k=1)
        rollback(why="the first was better", who="ann")
        third = deploy(who="ann")
        after = client.recommend(history=["i3"], k=1)
        ask_for(broken_bundle(bundles[0], tmp_path))
        with pytest.raises(ServingError, match="revision 3 serves on") as caught:
            deploy()
        time.sleep(0.2)

    assert load.failures == []
    assert len(load.revisions) > 100
    assert set(load.revisions) == {"1", "2", "3"}
    assert (before.item_ids, between.item_ids, after.item_ids) == (("i0",), ("i50",), ("i0",))
    assert (between.bundle_id, after.bundle_id) == (bundles[1].bundle_id, bundles[0].bundle_id)
    assert (second.live, second.previous, third.live, third.previous) == (True, 1, True, 2)
    assert [(row.action, row.revision.revision) for row in Ledger().rows()] == [
        ("promote", 1),
        ("live", 1),
        ("promote", 2),
        ("live", 2),
        ("rollback", 3),
        ("live", 3),
        ("promote", 4),
    ]
    assert "rollback" in str(caught.value.next_step)
    assert repository.pointed_to(home.triton_repository_dir()) == 3


def test_a_drill_fails_no_request(served: Supervisor, bundles: list[Bundle]) -> None:
    """On the only server, under load: back, golden, forward again, timed; every request has its answer."""
    ask_for(bundles[1])
    deploy(who="ann")
    with Load(served.server.url) as load, RecommendClient(served.server.url) as client:
        done = drill(who="ann", on_primary=True)
        after = client.recommend(history=["i3"], k=1)

    assert load.failures == []
    assert set(load.revisions) >= {"1", "2"}
    assert after.bundle_id == bundles[1].bundle_id
    assert 0 < done.seconds_to_safe < 60
    assert [(row.action, row.revision.revision) for row in Ledger().rows()[-3:]] == [
        ("live", 1),
        ("live", 2),
        ("drill", 2),
    ]


def test_without_a_server_the_repository_is_prepared(bundles: list[Bundle]) -> None:
    """The version is whole, the config points to it, nothing is said to be live."""
    ask_for(bundles[0], first=True)

    done = deploy()

    version = home.triton_repository_dir() / "recommend" / "1"
    assert (done.live, done.revision) == (False, 1)
    assert repository.pointed_to(home.triton_repository_dir()) == 1
    assert sorted(path.name for path in version.iterdir()) == ["bundles", "model.py", "revision.json", "verdicts"]
    assert [row.action for row in Ledger().rows()] == ["promote"]


def test_nothing_promoted_is_nothing_to_deploy() -> None:
    """The next command is named."""
    with pytest.raises(ServingError, match="nothing was promoted") as caught:
        deploy()

    assert "sidrec promote" in str(caught.value.next_step)


def test_a_rollback_needs_no_registry(bundles: list[Bundle]) -> None:
    """The repository holds bundle and verdict of the revision before."""
    ask_for(bundles[0], first=True)
    deploy()
    ask_for(bundles[1])
    deploy()
    rollback(why="back", who="ann")
    shutil.rmtree(home.registry_dir())

    assert deploy().bundle_ids == (bundles[0].bundle_id,)


def test_a_verdict_that_was_altered_deploys_nothing(bundles: list[Bundle]) -> None:
    """Deny by default: the file that the ledger names, or none."""
    ask_for(bundles[0], first=True)
    for path in (home.registry_dir() / "models").rglob("*.json"):
        if "verdict" in str(path) and "bundle/" not in str(path):
            path.write_text(path.read_text().replace('"pass"', '"fail"', 1))

    with pytest.raises(VerdictError):
        deploy()

    assert repository.revisions(home.triton_repository_dir()) == []


def test_a_tampered_bundle_deploys_nothing(bundles: list[Bundle]) -> None:
    """Digests are checked on the way into the repository."""
    ask_for(bundles[0], first=True)
    (registry.bundle_folder(bundles[0].bundle_id) / "decode.json").write_text("{}")

    with pytest.raises(BundleError, match=r"decode\.json"):
        deploy()

    assert repository.revisions(home.triton_repository_dir()) == []


def test_only_the_newest_three_versions_stay(bundles: list[Bundle]) -> None:
    """Older versions are pruned, the one that is served never."""
    root = home.triton_repository_dir()
    for number in range(5):
        ask_for(bundles[number % 2], first=number == 0)
        deploy()
    repository.point_to(root, 1)

    assert repository.prune(root) == [2]
    assert repository.revisions(root) == [1, 3, 4, 5]
