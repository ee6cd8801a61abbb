"""The real gateway in front of the real server."""

import http.client
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from serving.gateway.process import GatewayProcess
from tests.infra.test_prometheus import BENTOML
from tests.serving.conftest import Live
from tests.serving.gateway.conftest import TOKEN, call
from tests.serving.world import NUM_ITEMS


def test_the_gateway_answers_as_triton_does(gateway: GatewayProcess, live: Live) -> None:
    """Same items, scores, arm, bundle and ids through either door."""
    direct = live.client.recommend(history=["i4"], k=5, context={"request_id": "both"})
    status, text = call(gateway, "/v1/recommend", {"history": ["i4"], "k": 5, "context": {"request_id": "both"}})

    assert status == 200
    answer = json.loads(text)
    assert [item["item_id"] for item in answer["items"]] == list(direct.item_ids)
    assert [item["score"] for item in answer["items"]] == pytest.approx(direct.scores.tolist())
    assert [item["semantic_id"] for item in answer["items"]] == direct.semantic_ids.tolist()
    assert (answer["arm"], answer["bundle_id"], answer["source"]) == (direct.arm, direct.bundle_id, "model")
    assert (answer["request_id"], answer["revision"]) == ("both", 1)


@pytest.mark.parametrize("body", [{}, {"user_id": "nobody"}, {"history": ["not sold here"]}])
def test_a_stranger_gets_popular_items(gateway: GatewayProcess, body: dict[str, Any]) -> None:
    """Nobody, an unknown user, unknown items: ten distinct real items, and the answer says cold."""
    status, text = call(gateway, "/v1/recommend", body)

    answer = json.loads(text)
    assert (status, answer["source"]) == (200, "cold")
    assert len({item["item_id"] for item in answer["items"]} & {f"i{n}" for n in range(NUM_ITEMS)}) == 10


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"k": 0}, "greater than"),
        ({"k": 101}, "less than"),
        ({"k": "many"}, "integer"),
        ({"user": "u"}, "Extra"),
        ({"user_id": "u" * 257}, "256"),
        ({"user_id": "ü" * 200}, "bytes"),
        ({"history": [""]}, "at least 1"),
        ({"history": ["a"], "history_time": [1, 2]}, "history_time"),
        ({"history": ["a", "b"], "history_time": [2, 1]}, "falls"),
        ({"context": {"canary": True}}, "Extra"),
        ([], "object"),
        (b"{", ""),
    ],
)
def test_a_bad_body_is_the_callers_fault(gateway: GatewayProcess, body: Any, word: str) -> None:
    """400 with the reason; no traceback, no path of this machine."""
    status, text = call(gateway, "/v1/recommend", body)

    assert status == 400
    assert word in text
    assert "Traceback" not in text
    assert "/" + str(Path.cwd()).split("/")[1] + "/" not in text


@pytest.mark.parametrize("token", [None, "wrong", f"{TOKEN} "])
def test_without_the_token_nothing_is_answered(gateway: GatewayProcess, token: str | None) -> None:
    """401 before the body is looked at; liveness and readiness stay open to probes."""
    assert call(gateway, "/v1/recommend", {}, token=token)[0] == 401
    assert call(gateway, "/metrics", token=token)[0] == 401
    assert call(gateway, "/readyz", token=token)[0] == 200


def test_a_huge_body_is_refused(gateway: GatewayProcess) -> None:
    """413 from its announced length, before it is sent."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
    connection.putrequest("POST", "/v1/recommend")
    connection.putheader("authorization", f"Bearer {TOKEN}")
    connection.putheader("content-length", str(5 * 2**20))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()

    assert status == 413


def test_a_body_without_a_length_is_counted(gateway: GatewayProcess) -> None:
    """Chunks announce nothing; 413 comes once they are too many."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    chunks = (b" " * 2**20 for _ in range(5))
    connection.request("POST", "/v1/recommend", chunks, headers, encode_chunked=True)
    large = connection.getresponse().status
    connection.close()
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
    connection.request("POST", "/v1/recommend", iter([b'{"k"', b": 3}"]), headers, encode_chunked=True)
    response = connection.getresponse()
    items = json.loads(response.read())["items"]
    connection.close()

    assert large == 413
    assert (response.status, len(items)) == (200, 3)


def test_the_openapi_page_tells_all_that_a_caller_needs(gateway: GatewayProcess) -> None:
    """Fields with their limits, the token, each error with an example, and nothing that belongs to the framework."""
    status, text = call(gateway, "/docs.json")
    page = json.loads(text)

    assert status == 200
    for field in ("user_id", "history", "history_time", "exclude_seen", "deadline_ms", "maxItems"):
        assert f'"{field}"' in text
    post = page["paths"]["/v1/recommend"]["post"]
    assert set(post["responses"]) == {"200", "400", "401", "413", "415", "500", "503", "504"}
    errors = post["responses"]["503"]["content"]["application/json"]
    assert errors["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
    assert set(errors["examples"]) == {"overloaded", "unavailable"}
    assert "Retry-After" in post["responses"]["503"]["headers"]
    assert page["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert not re.search("bentoml.com|InternalServerError|TaskStatus", text)


def test_every_reference_of_the_openapi_page_leads_somewhere(gateway: GatewayProcess) -> None:
    """Generators of clients refuse a page with a reference to nothing."""
    text = call(gateway, "/docs.json")[1]
    schemas = json.loads(text)["components"]["schemas"]

    assert {name for name in re.findall(r'"#/components/schemas/([^"]+)"', text)} <= set(schemas)


def test_the_examples_of_the_openapi_page_are_answered(gateway: GatewayProcess) -> None:
    """What the page shows can be sent as it stands; the shared server has the event clock and no feature store."""
    page = json.loads(call(gateway, "/docs.json")[1])
    for path, expected in (("/v1/recommend", 200), ("/v1/events", 503)):
        content = page["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert call(gateway, path, example["value"])[0] == expected


def test_metrics_count_answers_and_failures(gateway: GatewayProcess) -> None:
    """Prometheus sees sources, refusals, and how many wait: nobody does now."""
    call(gateway, "/v1/recommend", {})
    call(gateway, "/v1/recommend", {"history": ["a", "b"], "history_time": [2, 1]})
    status, text = call(gateway, "/metrics")

    assert status == 200
    assert re.search(r'sidrec_gateway_answers_total\{source="cold"\} [1-9]', text)
    assert re.search(r'sidrec_gateway_failures_total\{error="invalid"\} [1-9]', text)
    assert re.search(r"sidrec_gateway_waiting 0.0", text)
    assert all(re.search(rf'{name}{{endpoint="/v1/recommend"', text) for name in BENTOML)


def test_events_without_a_store_are_recorded_and_said_so(gateway: GatewayProcess) -> None:
    """A malformed event is refused as a whole; a sound one without a feature store is 503, try again."""
    event = {"event_id": "e1", "user_id": "u", "item_id": "i1", "event_time": 1_290_000_000}

    assert call(gateway, "/v1/events", {"events": [event | {"colour": 1}]})[0] == 400
    assert call(gateway, "/v1/events", {"events": []})[0] == 400
    status, text = call(gateway, "/v1/events", {"events": [event]})
    assert status == 503
    assert json.loads(text)["retry"]


def test_a_killed_gateway_is_started_again(gateway: GatewayProcess) -> None:
    """Its worker does not outlive it, so the port is free and the next one answers."""
    assert gateway.process is not None
    os.kill(gateway.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _answers(gateway):
        time.sleep(0.1)
    gone = not _answers(gateway)

    gateway.keep()
    gateway.wait_answer()

    assert gone
    assert gateway.restarts == 1
    assert call(gateway, "/v1/recommend", {"history": ["i1"]})[0] == 200


def _answers(gateway: GatewayProcess) -> bool:
    try:
        return call(gateway, "/livez")[0] == 200
    except (OSError, http.client.HTTPException):
        return False
