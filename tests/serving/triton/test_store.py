"""A bare user id: the real server reads the real feature store."""

import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from serving.events import push_events
from serving.triton.server import TritonServer, free_port
from sidrec import exposure
from sidrec.client import RecommendClient
from sidrec.clock import day_start
from tests import feature_world as features
from tests.serving.conftest import publish, wait_answer
from tests.serving.world import make_bundle, make_revision

NOW = day_start(features.AS_OF)
USER = "user-003 é"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a materialised store, in force for the whole module."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(folder / "home"))
        features.make_store(folder / "inputs")
        yield folder


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[TritonServer]:
    bundle = make_bundle(state / "made", item_id="item-{:02d}")
    revision = make_revision(1, bundle, clock="event", history_deadline_ms=5000)
    publish(state / "repository", revision, bundle)
    one = TritonServer(state / "repository", state / "home", state / "log", free_port(), free_port())
    one.start()
    try:
        with RecommendClient(one.url) as client:
            wait_answer(one.running, client)
        yield one
    finally:
        one.stop()


@pytest.fixture
def client(server: TritonServer, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecommendClient]:
    monkeypatch.setenv("SIDREC_HOME", str(state / "home"))
    with RecommendClient(server.url, timeout_s=20) as one:
        yield one


def row(server: TritonServer, request_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        rows = exposure.read(server.state / "exposures").filter(pl.col("request_id") == request_id)
        if rows.height:
            return rows.to_dicts()[0]
        time.sleep(0.05)
    raise AssertionError(f"no exposure row of {request_id}")


def test_a_known_user_is_answered_from_the_store(server: TritonServer, client: RecommendClient) -> None:
    """The history is the store's: its items are excluded when asked so, and the row says where it came from."""
    bought = features.history_by_hand(features.baskets().to_dicts(), USER, features.AS_OF, features.CAP)

    answer = client.recommend(
        user_id=USER, k=100, exclude_seen=True, context={"request_id": "known", "event_time": NOW}
    )
    logged = row(server, "known")

    assert answer.source == "model"
    assert not {item for item, _ in bought} & set(answer.item_ids)
    assert (logged["history_source"], logged["history_length"]) == ("store", len(bought))
    assert logged["feature_age_s"] == NOW - bought[-1][1]


def test_a_replayed_request_does_not_see_later_purchases(server: TritonServer, client: RecommendClient) -> None:
    """Under the event clock a user's history ends where the request's time is."""
    first = features.baskets().filter(pl.col("user_id") == USER).sort("day")["time"].to_list()[0]

    client.recommend(user_id=USER, context={"request_id": "early", "event_time": first - 1})

    logged = row(server, "early")
    assert (logged["history_source"], logged["history_length"], logged["source"]) == ("none", 0, "cold")


def test_an_unknown_user_is_cold(server: TritonServer, client: RecommendClient) -> None:
    """The store has no such row, and the answer says so."""
    assert client.recommend(user_id="nobody").source == "cold"


def test_a_history_in_the_request_wins_over_the_store(server: TritonServer, client: RecommendClient) -> None:
    """What the caller knows is newer than what the store knows."""
    client.recommend(user_id=USER, history=["item-01"], context={"request_id": "wins"})

    assert (row(server, "wins")["history_source"], row(server, "wins")["history_length"]) == ("request", 1)


def test_a_purchase_changes_the_next_recommendation(server: TritonServer, client: RecommendClient) -> None:
    """Pushed event, next request: the item is in the history, without a restart."""
    before = client.recommend(user_id="new customer", context={"event_time": NOW})
    top = before.item_ids[0]
    event = {"event_id": "p1", "user_id": "new customer", "item_id": top, "event_time": NOW - 60}
    push_events([event])
    after = client.recommend(user_id="new customer", exclude_seen=True, context={"event_time": NOW})

    assert (before.source, after.source) == ("cold", "model")
    assert top not in after.item_ids


def test_a_lost_store_makes_cold_answers_until_it_is_back(server: TritonServer, client: RecommendClient) -> None:
    """The store's fault is never the request's: cold while it is gone, from the history again afterwards."""
    live = server.state / "feast" / "live"
    target = live.readlink()
    live.unlink()
    during = client.recommend(user_id=USER, k=3, context={"event_time": NOW})
    live.symlink_to(target)
    deadline = time.monotonic() + 20
    after = during
    while after.source == "cold" and time.monotonic() < deadline:
        time.sleep(0.2)
        after = client.recommend(user_id=USER, k=3, context={"event_time": NOW})

    assert (during.source, len(during.item_ids)) == ("cold", 3)
    assert after.source == "model"
