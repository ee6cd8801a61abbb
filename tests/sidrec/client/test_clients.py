"""Both clients on a real wire: who is asked, how often and for how long, whatever the servers do."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sidrec.client import (
    AccessError,
    AsyncRecommendClient,
    ContractError,
    DeadlineError,
    OverloadError,
    Recommendation,
    RecommendClient,
    Retry,
    UnavailableError,
)
from sidrec.errors import ServingError, SidrecError, UsageError
from tests.wire_world import BROKEN, HANG, WireServer, failing, wire_servers

Code = grpc.StatusCode
GONE = failing(Code.UNAVAILABLE, "Socket closed")
DEAD_STUB = failing(Code.INTERNAL, "Stub process 'recommend_0_0' is not healthy.")
FULL_QUEUE = failing(Code.UNAVAILABLE, "Exceeds maximum queue size")

Ask = Callable[..., Recommendation]


def ask_sync(url: str, *, times: int = 1, client: dict[str, Any] | None = None, **request: Any) -> Recommendation:
    with RecommendClient(url, **(client or {})) as one:
        for _ in range(times - 1):
            one.recommend(**request)
        return one.recommend(**request)


def ask_async(url: str, *, times: int = 1, client: dict[str, Any] | None = None, **request: Any) -> Recommendation:
    async def ask() -> Recommendation:
        async with AsyncRecommendClient(url, **(client or {})) as one:
            for _ in range(times - 1):
                await one.recommend(**request)
            return await one.recommend(**request)

    return asyncio.run(ask())


@pytest.fixture(params=[ask_sync, ask_async], ids=["threads", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """One question through either client."""
    found: Ask = request.param
    return found


@pytest.mark.parametrize(
    ("doing", "error", "asked"),
    [
        (failing(Code.INVALID_ARGUMENT, "K is 0"), UsageError, 1),
        (failing(Code.UNAUTHENTICATED), AccessError, 1),
        (failing(Code.PERMISSION_DENIED), AccessError, 1),
        (failing(Code.RESOURCE_EXHAUSTED), OverloadError, 1),
        (FULL_QUEUE, OverloadError, 1),
        (failing(Code.INTERNAL, "the server failed on this batch"), ServingError, 1),
        (failing(Code.UNIMPLEMENTED), ServingError, 1),
        (failing(Code.UNKNOWN), ServingError, 1),
        (BROKEN, ContractError, 1),
        (GONE, UnavailableError, 3),
        (DEAD_STUB, UnavailableError, 3),
        (failing(Code.NOT_FOUND, "Request for unknown model"), UnavailableError, 3),
        (failing(Code.CANCELLED, "CANCELLED"), UnavailableError, 3),
    ],
)
def test_each_status_is_one_error_and_asked_again_only_where_that_helps(
    ask: Ask, doing: Any, error: type[SidrecError], asked: int
) -> None:
    """One server that always says the same: the error is exactly that one, and says what the server said."""
    server = WireServer("a", always=doing)
    with wire_servers(server), pytest.raises(error) as caught:
        ask(server.url, client={"retries": 2})

    assert caught.type is error
    assert len(server.contexts) == asked
    assert isinstance(doing, str) or doing[1] in caught.value.message


@pytest.mark.parametrize("doing", [GONE, DEAD_STUB, FULL_QUEUE, failing(Code.NOT_FOUND), failing(Code.CANCELLED), HANG])
def test_another_server_answers_in_its_place(ask: Ask, doing: Any) -> None:
    """Gone, draining, without a stub, full, silent: the second one's answer comes within the same call."""
    first, second = WireServer("a", always=doing), WireServer("b")
    with wire_servers(first, second):
        answer = ask(f"{first.url},{second.url}", timeout_s=2.0)

    assert answer.item_ids == ("b",)
    assert len(first.contexts) == len(second.contexts) == 1


@pytest.mark.parametrize("doing", [failing(Code.INVALID_ARGUMENT), failing(Code.INTERNAL), BROKEN])
def test_what_any_server_would_say_is_not_asked_elsewhere(ask: Ask, doing: Any) -> None:
    """A bad request stays bad, a bug stays a bug: the second server is left alone."""
    first, second = WireServer("a", always=doing), WireServer("b")
    with wire_servers(first, second), pytest.raises(SidrecError):
        ask(f"{first.url},{second.url}")

    assert not second.contexts


def test_the_server_that_took_over_is_kept(ask: Ask) -> None:
    """The first one fails once and is well again; the second goes on answering."""
    first, second = WireServer("a", script=[GONE]), WireServer("b")
    with wire_servers(first, second):
        ask(f"{first.url},{second.url}", times=5)

    assert (len(first.contexts), len(second.contexts)) == (1, 5)


def test_a_healthy_first_server_gets_everything(ask: Ask) -> None:
    """Several urls are no load balancing."""
    first, second = WireServer("a"), WireServer("b")
    with wire_servers(first, second):
        ask(f"{first.url},{second.url}", times=5)

    assert (len(first.contexts), len(second.contexts)) == (5, 0)


def test_a_call_keeps_its_request_id_and_tells_what_time_is_left(ask: Ask) -> None:
    """Both attempts are one request, and the second is given less time than the first."""
    server = WireServer("a", script=[GONE])
    with wire_servers(server):
        ask(server.url, timeout_s=5.0, context={"surface": "home"})
    before, after = server.contexts

    assert before["request_id"] == after["request_id"]
    assert before["surface"] == after["surface"] == "home"
    assert 4900 <= before["deadline_ms"] <= 5000
    assert 4000 <= after["deadline_ms"] <= before["deadline_ms"] - 20
    assert before["sent_at_ms"] < after["sent_at_ms"]


def test_a_named_request_keeps_its_name(ask: Ask) -> None:
    """The caller's request id is sent, not a new one."""
    server = WireServer("a")
    with wire_servers(server):
        ask(server.url, context={"request_id": "mine"})

    assert server.contexts[0]["request_id"] == "mine"


@pytest.mark.parametrize("doing", [HANG, GONE])
def test_nothing_outlasts_the_deadline(ask: Ask, doing: Any) -> None:
    """Two servers, silent or failing: an error comes in time, not after each one's share added up."""
    first, second = WireServer("a", always=doing), WireServer("b", always=doing)
    with wire_servers(first, second):
        started = time.monotonic()
        with pytest.raises((DeadlineError, UnavailableError)):
            ask(f"{first.url},{second.url}", timeout_s=1.2, client={"retries": 1000})

    assert time.monotonic() - started < 2.0


def test_a_tight_deadline_is_spent_on_one_server(ask: Ask) -> None:
    """300 ms are not halved, and to have missed them is no reason to leave the server."""
    first, second = WireServer("a", script=[HANG]), WireServer("b")
    urls = f"{first.url},{second.url}"
    with wire_servers(first, second):
        urls = f"{first.url},{second.url}"
        with pytest.raises(DeadlineError):
            ask(urls, timeout_s=0.3)

    assert (len(first.contexts), len(second.contexts)) == (1, 0)
    assert first.contexts[0]["deadline_ms"] > 250


def test_no_time_at_all_is_a_deadline_error(ask: Ask) -> None:
    """Nobody is asked."""
    server = WireServer("a")
    with wire_servers(server), pytest.raises(DeadlineError):
        ask(server.url, timeout_s=0.0)

    assert not server.contexts


def test_a_version_that_is_not_served_is_not_waited_for(ask: Ask) -> None:
    """Asked for by number, NOT_FOUND is an answer; without a number it means that the server drains."""
    server = WireServer("a", always=failing(Code.NOT_FOUND))
    with wire_servers(server), pytest.raises(ServingError, match="NOT_FOUND") as caught:
        ask(server.url, model_version="7")

    assert caught.type is ServingError
    assert len(server.contexts) == 1


def test_a_value_that_fits_no_tensor_is_the_callers_fault(ask: Ask) -> None:
    """An integer beyond 64 bits, half a surrogate pair, a number for a name: refused before anything is sent."""
    server = WireServer("a")
    bad: list[dict[str, Any]] = [
        {"history": ["a"], "history_time": [2**70]},
        {"user_id": "\ud800"},
        {"history": [7]},
        {"k": "many"},
        {"context": {"surface": object()}},
    ]
    with wire_servers(server):
        for request in bad:
            with pytest.raises(UsageError):
                ask(server.url, **request)

    assert not server.contexts


def test_retries_are_bounded_by_the_budget_of_all_calls() -> None:
    """A hundred calls of one client against a dead server cost ten retries, not four hundred."""
    server = WireServer("a", always=GONE)
    retries: list[Retry] = []
    with wire_servers(server), RecommendClient(server.url, on_retry=retries.append) as client:

        def ask_once(_: int) -> None:
            with pytest.raises(UnavailableError):
                client.recommend(timeout_s=5.0)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask_once, range(100)))

    assert len(server.contexts) == 110
    assert len(retries) == 10
    assert {(retry.url, retry.status, retry.moved) for retry in retries} == {(server.url, "UNAVAILABLE", False)}


def test_thirty_calls_in_flight_all_move_on_without_a_retry() -> None:
    """A server that dies under load costs its callers one move each; none is refused for want of budget."""
    first, second = WireServer("a", script=[HANG] * 32, always=GONE), WireServer("b")
    retries: list[Retry] = []
    with wire_servers(first, second), RecommendClient([first.url, second.url], on_retry=retries.append) as client:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: client.recommend(timeout_s=4.0), range(32)))
        after = client.recommend()

    assert {answer.item_ids for answer in (*answers, after)} == {("b",)}
    assert len(retries) == 32
    assert all(retry.moved and retry.pause_s == 0 for retry in retries)


def test_pauses_grow_and_differ_between_clients() -> None:
    """50, 100, 200, 400 ms at most and half of that at least, drawn anew each time."""
    server = WireServer("a", always=GONE)
    drawn: list[list[float]] = []
    with wire_servers(server):
        for _ in range(2):
            retries: list[Retry] = []
            with (
                RecommendClient(server.url, timeout_s=9, on_retry=retries.append) as client,
                pytest.raises(UnavailableError),
            ):
                client.recommend()
            drawn.append([retry.pause_s for retry in retries])

    for pauses in drawn:
        assert len(pauses) == 4
        for pause, most in zip(pauses, (0.05, 0.1, 0.2, 0.4), strict=True):
            assert most / 2 <= pause <= most
    assert drawn[0] != drawn[1]


def test_a_probe_sees_every_failure(ask: Ask) -> None:
    """`retries=0` and one server: what fails once has failed."""
    server = WireServer("a", script=[GONE])
    with wire_servers(server), pytest.raises(UnavailableError):
        ask(server.url, client={"retries": 0})

    assert len(server.contexts) == 1


def test_a_cancelled_call_ends_on_the_server() -> None:
    """A caller that went away is waited for no longer."""
    server = WireServer("a", always=HANG)

    async def cancel() -> None:
        async with AsyncRecommendClient(server.url) as client:
            task = asyncio.create_task(client.recommend(timeout_s=30.0))
            while not server.contexts:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with wire_servers(server):
        started = time.monotonic()
        asyncio.run(cancel())
        assert time.monotonic() - started < 5


def test_importing_the_client_loads_neither_torch_nor_the_library() -> None:
    """A backend that asks needs numpy and tritonclient, nothing of what trains."""
    heavy = ("torch", "polars", "pydantic", "scipy", "bentoml", "feast", "safetensors")
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); import sidrec.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
