"""The teacher behind a server: asked as the protocol says, waited for as the server says, given up on at the end."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from sidrec.errors import ServingError, UsageError
from sidrec.systems.sidreasoner.config import TeacherConfig
from sidrec.systems.sidreasoner.openai_teacher import OpenAITeacher, retry_after
from sidrec.systems.sidreasoner.teacher import Request
from tests.sidrec.systems.sidreasoner.chat_server import ChatServer, Misdeed, completion


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def request_of(number: int = 0, **change: Any) -> Request:
    values: dict[str, Any] = {"task": "read_history", "system": "s", "user": f"q{number}", "facts": {}, "max_tokens": 9}
    return Request(**values | change)


def echo(body: dict[str, Any]) -> str:
    return f"reply to {body['messages'][1]['content']}"


def teacher_of(server: ChatServer, pauses: list[float] | None = None, **change: Any) -> OpenAITeacher:
    config = TeacherConfig(kind="openai", base_url=server.base_url, **{"timeout_s": 5.0, **change})
    return OpenAITeacher(config, pause=(pauses if pauses is not None else []).append, spread=lambda: 0.5)


def test_a_request_is_what_the_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, messages, limits and seed; JSON where it is wanted; the key, which no text or name shows."""
    monkeypatch.setenv("OUR_KEY", "secret")
    with ChatServer(echo).running() as server:
        teacher = teacher_of(server, model="m", api_key_env="OUR_KEY")
        replies = list(teacher.answer([request_of(seed=3, json=True, temperature=0.2)]))

    assert replies == [(0, "reply to q0")]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q0"}],
            "max_tokens": 9,
            "temperature": 0.2,
            "seed": 3,
            "response_format": {"type": "json_object"},
        }
    ]
    assert server.keys == ["Bearer secret"]
    assert "secret" not in f"{teacher.name} {teacher.config} {vars(teacher)}"


def test_a_server_of_ones_own_needs_no_key() -> None:
    with ChatServer(echo).running() as server:
        list(teacher_of(server).answer([request_of()]))

    assert server.keys == [None]
    assert "response_format" not in server.bodies[0]


def test_every_request_is_answered_and_few_are_in_flight() -> None:
    with ChatServer(echo, delay_s=0.02).running() as server:
        replies = dict(teacher_of(server, concurrency=3).answer([request_of(number) for number in range(12)]))

    assert replies == {number: f"reply to q{number}" for number in range(12)}
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize(
    "misdeed",
    [
        Misdeed(status=500),
        Misdeed(status=429),
        Misdeed(status=200, text="<html>not JSON</html>"),
        Misdeed(status=200, text='{"choices": []}'),
        Misdeed(status=200, text='{"choices": [{"message": {"content": null}}]}'),
    ],
)
def test_a_failure_is_tried_again(misdeed: Misdeed) -> None:
    """The pause doubles with every try."""
    pauses: list[float] = []
    with ChatServer(echo, [misdeed, misdeed]).running() as server:
        teacher = teacher_of(server, pauses)
        replies = list(teacher.answer([request_of()]))

    assert replies == [(0, "reply to q0")]
    assert pauses == [0.5, 1.0]
    assert teacher.usage()["retries"] == 2


def test_a_server_is_left_alone_as_long_as_it_asks() -> None:
    """Where that is longer than our own pause, and no longer than a minute."""
    pauses: list[float] = []
    asked = [Misdeed(429, {"Retry-After": value}) for value in ("7", "0", "3600")]
    with ChatServer(echo, asked).running() as server:
        assert list(teacher_of(server, pauses).answer([request_of()])) == [(0, "reply to q0")]

    assert pauses == [7.0, 1.0, 60.0]


def test_a_date_is_a_time_to_wait_for_too() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)

    assert 28 < (retry_after({"Retry-After": soon}) or 0) <= 30
    assert retry_after({"Retry-After": past}) == 0
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


def test_a_reply_that_takes_too_long_is_asked_for_again() -> None:
    with ChatServer(echo, [Misdeed(delay_s=0.6, text="late")]).running() as server:
        teacher = teacher_of(server, timeout_s=0.2)
        replies = list(teacher.answer([request_of()]))

    assert replies == [(0, "reply to q0")]
    assert teacher.usage()["retries"] == 1


def test_one_request_that_never_succeeds_is_given_up() -> None:
    """The others are answered all the same."""
    with ChatServer(echo, [Misdeed(503)] * 3).running() as server:
        teacher = teacher_of(server, concurrency=1, retries=2)
        replies = dict(teacher.answer([request_of(number) for number in range(3)]))

    assert replies == {0: None, 1: "reply to q1", 2: "reply to q2"}
    assert teacher.usage()["given_up"] == 1


def test_a_server_that_is_gone_ends_the_work() -> None:
    with ChatServer(echo, [Misdeed(503)] * 99).running() as server:
        teacher = teacher_of(server, concurrency=2, retries=0)
        with pytest.raises(ServingError, match="answered none of the last 8 requests"):
            list(teacher.answer([request_of(number) for number in range(30)]))


@pytest.mark.parametrize(("status", "hint"), [(401, "set OPENAI_API_KEY"), (404, "corpus.teacher")])
def test_what_trying_again_cannot_mend_ends_the_work(status: int, hint: str) -> None:
    with (
        ChatServer(echo, [Misdeed(status, text="no model of that name")]).running() as server,
        pytest.raises(UsageError, match=f"status {status}: no model of that name") as caught,
    ):
        list(teacher_of(server).answer([request_of()]))

    assert hint in str(caught.value.next_step)
    assert len(server.bodies) == 1


def test_tokens_are_counted_and_priced() -> None:
    """A reply without counts counts nothing."""
    del (bare := completion("x"))["usage"]
    with ChatServer(echo).running() as server:
        priced = teacher_of(server, prompt_price=10.0, completion_price=100.0)
        list(priced.answer([request_of(number) for number in range(5)]))
        free = teacher_of(server)
        server.misdeeds.append(Misdeed(text=json.dumps(bare)))
        assert list(free.answer([request_of()])) == [(0, "x")]

    assert priced.usage() == {
        "requests": 5,
        "retries": 0,
        "given_up": 0,
        "prompt_tokens": 55,
        "completion_tokens": 35,
        "cost": 0.00405,
    }
    assert free.usage()["prompt_tokens"] == 0
    assert free.usage()["cost"] is None
