"""Whatever is sent, and whatever the server behind says, the answer is one of ours and tells nothing that is not."""

import http.client
import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serving.gateway.process import GatewayProcess
from serving.gateway.refusals import PUBLIC
from tests.serving.gateway.conftest import TOKEN, call, call_for_headers, running
from tests.wire_world import BROKEN, HANG, WireServer, failing, wire_servers

SECRETS = re.compile(
    r"traceback|\.py\b|site-packages|/(work|home|usr|tmp|opt)/|pydantic|bentoml|starlette|triton|grpc|StatusCode|"
    r"RecommendRequest|EventsRequest|Gateway__|127\.0\.0\.1|errno|codec|0x[0-9a-f]{6}|\bobject at\b",
    re.IGNORECASE,
)
ERROR_KEYS = {"error", "message", "retry"}
NUM_BODIES = 400

VALID: dict[str, Any] = {
    "user_id": "u1",
    "history": ["i1", "i2"],
    "history_time": [1, 2],
    "k": 5,
    "exclude_seen": True,
    "deadline_ms": 5000,
    "context": {"request_id": "r", "surface": "s", "event_time": 5, "rationale": False},
}
ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1e308, 2**31, 2**63, 2**70, -(2**70), "", " ", "\0", "\ud800", "é" * 300, "x" * 5000,
    [], [[]], [None], [2**70], ["\udfff"], {}, {"": ""}, {"__class__": "os"}, float("nan"), float("inf"),
    "../../etc/passwd", "{{7*7}}", "'; drop table users", {"$ref": "#"}, ["a"] * 3000,
]  # fmt: skip


def odd_body(draw: random.Random) -> bytes:
    """One body: a sound one with something odd in it, raw bytes, or JSON that is no object."""
    match draw.randrange(6):
        case 0:
            return bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
        case 1:
            return json.dumps(draw.choice(ODD)).encode()
        case 2:
            text = json.dumps(VALID)
            at = draw.randrange(len(text))
            return (text[:at] + draw.choice(['"', "{", "}", "\\", "\\u", ",", "\0", "1e999"]) + text[at:]).encode()
        case 3:
            depth = draw.choice([50, 5000, 100_000])
            return b'{"context":' + draw.choice([b"[", b'{"a":']) * depth
        case _:
            body = json.loads(json.dumps(VALID))
            for _ in range(draw.randrange(1, 4)):
                place = draw.choice([body, body["context"]]) if isinstance(body.get("context"), dict) else body
                place[draw.choice([*VALID, *VALID["context"], "colour", "__init__"])] = draw.choice(ODD)
            return json.dumps(body).encode()


def test_hundreds_of_odd_bodies_tell_nothing(gateway: GatewayProcess) -> None:
    """Each gets an answer, a 400 in our words or another refusal of ours, and no 500 at all."""
    draw = random.Random(7)
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=20)
    seen: dict[int, int] = {}
    for number in range(NUM_BODIES):
        body = odd_body(draw)
        path = draw.choice(["/v1/recommend"] * 3 + ["/v1/events"])
        kind = draw.choice(["application/json"] * 6 + ["text/plain", "multipart/form-data", "application/x-pickle", ""])
        connection.request("POST", path, body, {"authorization": f"Bearer {TOKEN}", "content-type": kind})
        response = connection.getresponse()
        text = response.read().decode()
        seen[response.status] = seen.get(response.status, 0) + 1
        what = (number, path, kind, body[:200], text[:300])
        assert response.status in (200, 400, 415), what
        if response.status != 200:
            assert set(json.loads(text)) == ERROR_KEYS, what
            # What the caller sent may come back to it; what is ours may not.
            assert not SECRETS.search(text), what
    connection.close()

    assert seen[400] > NUM_BODIES / 2
    assert call(gateway, "/v1/recommend", VALID)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/recommend", 405),
        ("PUT", "/v1/events", 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("POST", "/v1/recommend/submit", 404),
    ],
)
def test_a_wrong_address_or_method_is_told_in_our_words(
    gateway: GatewayProcess, method: str, path: str, status: int
) -> None:
    """The framework's own pages are not shown."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=20)
    connection.request(method, path, headers={"authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()

    assert response.status == status
    assert set(json.loads(text)) == ERROR_KEYS
    assert not SECRETS.search(text)


def test_a_fault_is_told_by_its_field(gateway: GatewayProcess) -> None:
    """Several faults at once, each with its place in the body."""
    status, text = call(gateway, "/v1/recommend", {"k": 0, "history": ["a", ""], "context": {"surface": 3}})
    message = json.loads(text)["message"]

    assert status == 400
    for place in ("k: ", "history.1: ", "context.surface: "):
        assert place in message


@pytest.fixture(scope="module")
def behind() -> Iterator[WireServer]:
    server = WireServer("a")
    with wire_servers(server):
        yield server


@pytest.fixture(scope="module")
def small(behind: WireServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway in which eight requests may wait, for 1.5 s at most."""
    limits = {"SIDREC_GATEWAY_MAX_WAITING": "8", "SIDREC_GATEWAY_DEADLINE_MS": "1500"}
    with running(tmp_path_factory.mktemp("small"), behind.url, **limits) as process:
        yield process


LEAKY = "Traceback (most recent call last): File '/opt/model.py', in execute at 127.0.0.1"


@pytest.mark.parametrize(
    ("doing", "name"),
    [
        (failing(grpc.StatusCode.INTERNAL, LEAKY), "unavailable"),
        (failing(grpc.StatusCode.UNKNOWN, LEAKY), "unavailable"),
        (failing(grpc.StatusCode.UNAVAILABLE, LEAKY), "unavailable"),
        (failing(grpc.StatusCode.PERMISSION_DENIED, LEAKY), "unavailable"),
        (failing(grpc.StatusCode.RESOURCE_EXHAUSTED, LEAKY), "overloaded"),
        (failing(grpc.StatusCode.DEADLINE_EXCEEDED, LEAKY), "deadline"),
        (HANG, "deadline"),
        (BROKEN, "unavailable"),
    ],
)
def test_what_the_server_says_stays_in_our_log(
    small: GatewayProcess, behind: WireServer, doing: Any, name: str
) -> None:
    """A traceback of the server behind becomes one word, a sentence, and when to come back."""
    behind.always = doing
    try:
        status, text, headers = call_for_headers(small, "/v1/recommend", {"k": 3})
    finally:
        behind.always = "answer"

    assert (status, json.loads(text)["error"]) == (PUBLIC[name][0], name)
    assert not SECRETS.search(text)
    assert 1 <= int(headers["Retry-After"]) <= 3


def test_the_callers_deadline_reaches_the_server(small: GatewayProcess, behind: WireServer) -> None:
    """The shorter one of the caller's and the gateway's own."""
    told = []
    for deadline_ms in (400, 30_000, None):
        behind.contexts.clear()
        assert call(small, "/v1/recommend", {"k": 3, "deadline_ms": deadline_ms})[0] == 200
        # Its readiness is not asked for meanwhile: the only request is ours.
        [context] = behind.contexts
        told.append(context["deadline_ms"])

    assert 300 <= told[0] <= 400
    assert 1400 <= told[1] <= 1500
    assert 1400 <= told[2] <= 1500


def test_a_burst_is_shed_at_once_and_waits_for_nobody(small: GatewayProcess, behind: WireServer) -> None:
    """Of forty at once on a silent server eight wait for their deadline; the others are refused, told when to come
    back, and the next one is answered."""
    behind.always = HANG
    behind.contexts.clear()
    try:
        with ThreadPoolExecutor(40) as pool:
            found = list(pool.map(lambda _: call_for_headers(small, "/v1/recommend", {"k": 3}), range(40)))
    finally:
        behind.always = "answer"
    names = [json.loads(text)["error"] for _, text, _ in found]

    assert sorted(set(names)) == ["deadline", "overloaded"]
    assert names.count("deadline") == len(behind.contexts) == 8
    assert {status for status, _, _ in found} == {503, 504}
    assert len({headers["Retry-After"] for _, _, headers in found}) > 1
    assert call(small, "/v1/recommend", {"k": 3})[0] == 200
    assert re.search(r'failures_total\{error="overloaded"\} (3[2-9])', call(small, "/metrics")[1])


def test_a_burst_on_the_real_server_loses_nobody(gateway: GatewayProcess) -> None:
    """Three hundred requests from a hundred callers: each one has its ten items or is told to come back."""
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda n: call(gateway, "/v1/recommend", {"history": [f"i{n % 50}"]}), range(300)))

    assert {status for status, _ in found} <= {200, 503}
    for status, text in found:
        said = json.loads(text)
        assert len(said["items"]) == 10 if status == 200 else said["error"] == "overloaded"
    assert sum(status == 200 for status, _ in found) >= 64
