"""Systems through every door: the library, Triton and the gateway give the same answer to the same request."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.triton.server import TritonServer, free_port
from sidrec import exposure
from sidrec.bundle import Bundle
from sidrec.client import RecommendClient
from sidrec.clock import DAY_S
from sidrec.recommender import Recommender, Request
from tests.reg4rec_bundle import AS_OF, reg4rec_bundle
from tests.serving.conftest import Live, publish, wait_answer
from tests.serving.gateway.conftest import call, running
from tests.serving.world import make_revision
from tests.sidreasoner_bundle import sidreasoner_bundle

# What each says of a search in the exposure log.
SAID = {
    "reg4rec": {"first_slot", "order_entropy", "pruning_survival", "repeat_share"},
    "sidreasoner": {"rationale_tokens", "rationale_ended", "repeat_share"},
}


@pytest.fixture(scope="module", params=SAID)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    make = {"reg4rec": reg4rec_bundle, "sidreasoner": sidreasoner_bundle}[request.param]
    return make(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def serving(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("doors")
    revision = make_revision(1, bundle)
    publish(folder / "repository", revision, bundle)
    server = TritonServer(folder / "repository", folder / "home", folder / "log", free_port(), free_port())
    server.start()
    client = RecommendClient(server.url, timeout_s=20)
    try:
        wait_answer(server.running, client)
        yield Live(server, client, revision, {"control": bundle})
    finally:
        client.close()
        server.stop()


def asked(number: int) -> dict[str, Any]:
    """Return a request: longer and longer histories, with and without times, with and without what was seen."""
    items = [f"i{(7 * number + 3 * step) % 60:02d}" for step in range(1 + 2 * number)]
    body: dict[str, Any] = {"history": items, "k": 3 + number, "exclude_seen": number % 2 == 1}
    if number % 3:
        body["history_time"] = [AS_OF - (60 - 4 * step) * DAY_S for step in range(len(items))]
    return body


def test_every_door_gives_the_same_answer(bundle: Bundle, serving: Live, tmp_path: Path) -> None:
    """Items and semantic IDs are equal, scores to 1e-4; what the search said of itself is in the exposure log.

    A rationale comes where it is asked for, at both doors, and nowhere else.
    """
    recommender = Recommender.open(bundle.folder)
    with running(tmp_path, serving.server.url) as gateway:
        for number in range(6):
            body = asked(number)
            times = tuple(body.get("history_time", ()))
            request = Request(tuple(body["history"]), times, body["k"], body["exclude_seen"])
            [own] = recommender.recommend([request])
            why = number % 2 == 0
            context = {"rationale": why, "request_id": f"triton-{number}"}
            direct = serving.client.recommend(**body, context=context)
            context["request_id"] = f"gateway-{number}"
            status, text = call(gateway, "/v1/recommend", {**body, "context": context})
            answer = json.loads(text)

            assert status == 200, text
            assert (own.source, direct.source, answer["source"]) == ("model",) * 3
            assert (direct.rationale, answer["rationale"]) == (own.rationale * why,) * 2
            assert list(direct.item_ids) == list(own.item_ids)
            assert [item["item_id"] for item in answer["items"]] == list(own.item_ids)
            assert direct.semantic_ids.tolist() == own.semantic_ids.tolist()
            assert direct.scores.tolist() == pytest.approx(own.scores.tolist(), abs=1e-4)
            assert [item["score"] for item in answer["items"]] == pytest.approx(own.scores.tolist(), abs=1e-4)
    serving.server.stop()
    rows = exposure.read(serving.server.state / "exposures")

    assert {f"{door}-{number}" for door in ("triton", "gateway") for number in range(6)} <= set(rows["request_id"])
    for said in rows["stats"].to_list():
        names = {one["name"] for one in said}
        assert names in (SAID[recommender.kind], set())
    assert any(rows["stats"].list.len() > 0)
    assert (recommender.kind == "sidreasoner") == bool(own.rationale)
