"""A feature store that is locked, gone or old makes cold answers in time, never failed or late ones; then it heals."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from feature_repo.store import live_folder
from serving.supervisor import Supervisor
from sidrec import home
from sidrec.client import RecommendClient
from tests import feature_world
from tests.chaos.conftest import CEILING_S
from tests.chaos.load import Load

Serve = Callable[..., AbstractContextManager[Supervisor]]

USER = "user-000 é"
_DEADLINE_MS = 200
# The store's deadline, and what a busy machine adds to an answer.
_IN_TIME_S = 2.0


@pytest.fixture
def store(tmp_path: Path, own_state: Path) -> Path:
    """A copy of a store, since who made it still holds the original's database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(tmp_path / "maker"))
        feature_world.make_store(tmp_path / "inputs")
    shutil.copytree(tmp_path / "maker", own_state, symlinks=True)
    return live_folder(home.feast_dir())


def wait_source(client: RecommendClient, source: str) -> None:
    """Ask until an answer has this source: a store that failed is opened again after a moment."""
    deadline = time.monotonic() + CEILING_S
    while client.recommend(user_id=USER).source != source:
        assert time.monotonic() < deadline, f"no answer became {source}"
        time.sleep(0.05)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database so that nobody reads it."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # in a write-ahead log a writer locks nobody out
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("COMMIT")


def cold_in_time(load: Load, began: int) -> bool:
    answers = load.answers[began:]
    return {one.answer.source for one in answers} == {"cold"} and max(one.seconds for one in answers) < _IN_TIME_S


def test_a_store_that_is_locked_while_the_server_starts_is_cold_then_warm(serve: Serve, store: Path) -> None:
    """The server starts without it, answers cold within the deadline, and warm once the lock is gone."""
    with (
        locked(store / "online.db"),
        serve(item_id="item-{:02d}", history_deadline_ms=_DEADLINE_MS) as supervisor,
    ):
        with Load(supervisor.server.url, ask=lambda n: {"user_id": USER}) as load:
            load.wait_answers(8)
            began = len(load.answers)
            load.wait_answers(40)
            during = cold_in_time(load, began)
        restarts = supervisor.restarts

    assert during
    assert (load.failures, restarts) == ([], 0)


def test_a_store_that_goes_is_cold_and_that_comes_back_is_warm(serve: Serve, store: Path) -> None:
    """The live link is removed under load and put back: warm, cold in time, warm again; no request fails."""
    link, aside = home.feast_dir() / "live", home.feast_dir() / "aside"
    with (
        serve(item_id="item-{:02d}", history_deadline_ms=_DEADLINE_MS) as supervisor,
        RecommendClient(supervisor.server.url, timeout_s=10.0, retries=0) as client,
    ):
        wait_source(client, "model")
        with Load(supervisor.server.url, ask=lambda n: {"user_id": USER}) as load:
            link.rename(aside)
            wait_source(client, "cold")
            load.wait_answers(8)
            began = len(load.answers)
            load.wait_answers(40)
            during = cold_in_time(load, began)
            aside.rename(link)
            wait_source(client, "model")

    assert during
    assert load.failures == []


def test_a_store_without_its_folder_is_no_store(serve: Serve) -> None:
    """No feature store was ever made: a bare user id is a cold user."""
    with (
        serve(history_deadline_ms=_DEADLINE_MS) as supervisor,
        RecommendClient(supervisor.server.url, timeout_s=10.0) as client,
    ):
        assert client.recommend(user_id=USER).source == "cold"
        assert client.recommend(history=["i3"]).source == "model"


def test_a_stale_history_is_cold(serve: Serve, store: Path) -> None:
    """On the wall's clock every history of 2010 is too old."""
    with (
        serve(item_id="item-{:02d}", history_deadline_ms=_DEADLINE_MS, clock="wall") as supervisor,
        RecommendClient(supervisor.server.url, timeout_s=10.0) as client,
    ):
        assert client.recommend(user_id=USER).source == "cold"
        assert client.recommend(history=["item-03"]).source == "model"
        shutil.rmtree(store)
        assert client.recommend(user_id=USER).source == "cold"
