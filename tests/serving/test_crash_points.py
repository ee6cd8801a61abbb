"""A process that dies at any write leaves a ledger and a repository that the next start makes one again."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving import deploy as deployment
from serving import registry
from serving.audit import audit
from serving.triton import repository
from sidrec import contract, home
from sidrec.bundle import Bundle
from sidrec.release.ledger import Ledger
from sidrec.release.policy import Policy
from sidrec.release.promotion import approve, promote
from sidrec.release.rollback import rollback
from tests.crash_world import every_point
from tests.release_world import make_signed
from tests.serving.world import make_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that loads whatever the config names and answers well: only what lies on disk is tested here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a process that dies loses nothing that it wrote
    state: dict[str, Any] = {"health": "ready", "grpc": "127.0.0.1:1", "restarts": 0, "standby": None}
    monkeypatch.setattr(deployment, "read_state", lambda: state)
    monkeypatch.setattr(deployment, "read_admin_key", lambda: "key")
    monkeypatch.setattr(deployment, "load", lambda url, key, *, timeout_s: None)
    monkeypatch.setattr(deployment, "_golden", lambda root, revision, url: 6)


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    made = [make_bundle(tmp_path / "made", name=f"b{newest}", newest=newest) for newest in (0, 50, 100)]
    for bundle in made:
        path = tmp_path / f"{bundle.bundle_id}.json"
        make_signed(bundle, path)
        registry.register(bundle.folder, path)
    return made


class House:
    """A state folder that can be put back to how it was."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        shutil.copytree(home.home(), kept)

    def reset(self) -> None:
        shutil.rmtree(home.home(), ignore_errors=True)
        shutil.copytree(self.kept, home.home())


def ask(bundle: Bundle) -> None:
    promote(bundle, registry.verdict_path(bundle.bundle_id), why="test", who="ann", policy=Policy())


@pytest.fixture
def house(bundles: list[Bundle], tmp_path: Path) -> House:
    """Four revisions of two bundles went live one after the other; the third bundle never did."""
    for bundle in (bundles[0], bundles[1], bundles[0], bundles[1]):
        ask(bundle)
        deployment.deploy(who="ann")
    return House(tmp_path / "kept")


def started_again(before: int, after: int) -> str:
    """Start again; return whose bundle is asked for, after ledger, repository and what is live agree on it."""
    book = Ledger()
    desired = book.desired()
    assert desired is not None
    assert desired.revision in (before, after)
    done = deployment.deploy(who="next start")
    rows = book.rows()
    root = home.triton_repository_dir()

    assert done.live
    assert repository.pointed_to(root) == done.revision == desired.revision
    assert rows[-1].action == "live"
    assert rows[-1].revision == desired
    assert len([row for row in rows if row.action == "live" and row.revision == desired]) == 1
    assert done.revision in list(audit(rows))
    assert [path.name for path in (root / "recommend").iterdir() if path.name.startswith((".tmp", ".gone"))] == []
    assert len(repository.revisions(root)) <= repository.KEEP
    return desired.bundle_ids[0]


def test_the_first_promotion_cut_off_anywhere_is_made_good(bundles: list[Bundle], tmp_path: Path) -> None:
    """From nothing: nothing is asked for, or the first bundle is served, with all that a server's start needs."""
    empty = House(tmp_path / "kept")

    def move() -> None:
        ask(bundles[0])
        deployment.deploy(who="ann")

    for _ in every_point(move, home.home(), empty.reset):
        if Ledger().desired() is None:
            ask(bundles[0])
        assert started_again(1, 1) == bundles[0].bundle_id
        warmup = home.triton_repository_dir() / "recommend" / "warmup"
        assert {path.name for path in warmup.iterdir()} >= set(contract.warmup_files())


@pytest.mark.slow
def test_a_promotion_cut_off_anywhere_is_made_good(house: House, bundles: list[Bundle]) -> None:
    """Between the ledger's first byte and the last file pruned: the old bundle or the new one, whole, and once."""

    def move() -> None:
        ask(bundles[2])
        deployment.deploy(who="ann")

    seen = [started_again(4, 5) for _ in every_point(move, home.home(), house.reset)]

    # Up to one point nothing was asked for, from there on it is done.
    first = seen.index(bundles[2].bundle_id)
    assert 0 < first < len(seen) - 20
    assert set(seen[:first]) == {bundles[1].bundle_id}
    assert set(seen[first:]) == {bundles[2].bundle_id}


@pytest.mark.slow
def test_a_rollback_cut_off_anywhere_is_made_good(house: House, bundles: list[Bundle]) -> None:
    """The same of the way back."""

    def move() -> None:
        rollback(why="worse", who="ann")
        deployment.deploy(who="ann")

    seen = [started_again(4, 5) for _ in every_point(move, home.home(), house.reset)]

    assert set(seen) == {bundles[0].bundle_id, bundles[1].bundle_id}


def test_an_approval_cut_off_anywhere_is_made_good(house: House, bundles: list[Bundle], tmp_path: Path) -> None:
    """What was asked for stays asked for, or is approved: never both, never neither."""
    path = registry.verdict_path(bundles[2].bundle_id)
    promote(bundles[2], path, why="test", who="ann", policy=Policy.model_validate({"two_person": True}))
    asked = House(tmp_path / "asked")

    def move() -> None:
        approve(None, why="read it", who="bob", bundle_of=lambda _: bundles[2], verdict_of=lambda *_: path)

    for _ in every_point(move, home.home(), asked.reset):
        rows = Ledger().rows()
        approved = [row for row in rows if row.action == "approve"]
        desired = Ledger().desired()
        assert desired is not None
        assert desired.bundle_ids[0] == (bundles[2] if approved else bundles[1]).bundle_id
        if not approved:
            move()
        assert [row.approves for row in Ledger().rows() if row.action == "approve"] == [9]


def test_taking_over_a_first_ledger_cut_off_anywhere_is_made_good(tmp_path: Path) -> None:
    """The rows of the first version's file are in the database once, whenever its taking over died."""
    folder = home.ledger_path().parent
    folder.mkdir(parents=True)
    for suffix in (".jsonl", ".head"):
        shutil.copyfile(ROOT / "tests" / "golden" / f"ledger_v1{suffix}", folder / f"ledger{suffix}")
    old = House(tmp_path / "kept")

    for _ in every_point(lambda: Ledger().rows(), home.home(), old.reset):
        assert [row.seq for row in Ledger().rows()] == [1, 2, 3, 4, 5]
        assert not (folder / "ledger.jsonl").exists()
