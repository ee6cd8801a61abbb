"""The first healthy server is asked, and the same one until it fails."""

import time

import pytest
from tritonclient.utils import InferenceServerException

from sidrec.client.calls import channel_args
from sidrec.client.course import Course, RetryBudget
from sidrec.client.servers import Servers, parse_urls
from sidrec.errors import UsageError


class Clock:
    """Stands still until told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers(clock: Clock) -> Servers:
    """Three servers whose rests are not shortened."""
    return Servers(["a:1", "b:1", "c:1"], clock=clock, jitter=lambda: 1.0)


def test_the_next_one_is_kept_after_the_first_is_back(servers: Servers, clock: Clock) -> None:
    """A failure moves everybody to b; a's rest ends, and b is still asked, until it fails: then a again."""
    assert servers.choose() == "a:1"
    servers.failed("a:1", started=0.0)
    assert servers.choose() == "b:1"

    clock.now = 100.0
    assert servers.choose() == "b:1"
    servers.failed("b:1", started=99.0)
    assert servers.choose() == "a:1"


def test_a_rest_doubles_and_ends_with_an_answer(servers: Servers, clock: Clock) -> None:
    """1 s, 2 s, 4 s … 30 s; an answer sets it back to 1 s."""
    rests = []
    for _ in range(7):
        servers.failed("a:1", started=clock.now)
        begun = clock.now
        while servers.choose(["b:1", "c:1"]) is None:
            clock.now += 0.5
        rests.append(clock.now - begun)
    servers.answered("a:1", started=clock.now)
    servers.failed("a:1", started=clock.now)
    clock.now += 1.0

    assert rests == [1, 2, 4, 8, 16, 30, 30]
    assert servers.choose(["b:1", "c:1"]) == "a:1"


def test_requests_that_failed_together_count_once(servers: Servers, clock: Clock) -> None:
    """Thirty in flight on one killed server are one failure; a late success of before it does not excuse it."""
    clock.now = 5.0
    for _ in range(30):
        servers.failed("a:1", started=4.0)
    servers.answered("a:1", started=4.5)

    assert servers.choose() == "b:1"
    assert servers.choose(["b:1", "c:1"]) is None
    clock.now = 6.0
    assert servers.choose(["b:1", "c:1"]) == "a:1"


def test_when_all_failed_the_first_to_be_back_is_asked(servers: Servers, clock: Clock) -> None:
    """Nobody is thought healthy; who answers first is the one from then on."""
    for second, url in enumerate(("b:1", "c:1", "a:1")):
        clock.now = second / 10
        servers.failed(url, started=clock.now)

    assert servers.choose() is None
    assert servers.least_bad() == "b:1"
    servers.answered("c:1", started=0.5)
    assert servers.choose() == "c:1"


def test_rests_are_spread(clock: Clock) -> None:
    """Clients that failed together do not come back together: at once after half of the rest at the earliest."""
    early, late = (Servers(["a:1"], clock=clock, jitter=lambda share=share: share) for share in (0.0, 0.99))
    for servers in (early, late):
        servers.failed("a:1", started=0.0)
    clock.now = 0.5

    assert (early.choose(), late.choose()) == ("a:1", None)


def test_a_list_of_urls_keeps_its_order() -> None:
    """Spaces and empty entries do not matter."""
    assert parse_urls(" a:1, b:2 ,, dns:///c:3") == ("a:1", "b:2", "dns:///c:3")


@pytest.mark.parametrize("text", ["", " , ", "a:1,a:1", "http://a:1", "localhost", "a:port"])
def test_what_is_no_list_of_servers_is_refused(text: str) -> None:
    """Before anything is asked, and with what was expected."""
    with pytest.raises(UsageError, match="host:port"):
        parse_urls(text)


def test_where_all_rest_each_is_asked_once_before_a_retry_is_paid() -> None:
    """A server may have come back while another one answered, and nobody has noticed."""
    servers, budget = Servers(("a:1", "b:1")), RetryBudget(tokens=1.0)
    for url in servers.urls:
        servers.failed(url, time.monotonic())
    gone = InferenceServerException("connection refused", status="StatusCode.UNAVAILABLE")
    course = Course(servers, budget, timeout_s=5.0)

    first = course.attempt()
    assert course.failed(first, gone) == 0.0
    second = course.attempt()
    assert {first.url, second.url} == set(servers.urls)
    assert budget.tokens == 1.0
    assert course.failed(second, gone) > 0
    assert budget.tokens == 0.0


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("triton:8001", True),
        ("dns:///triton.sidrec:8001", True),
        ("127.0.0.1:8001", False),
        ("[::1]:8001", False),
        ("localhost:8001", False),
    ],
)
def test_replicas_behind_one_name_share_the_calls(url: str, shared: bool) -> None:
    """A name is balanced over what it resolves to; by default gRPC would stay with the first replica."""
    assert (("grpc.lb_policy_name", "round_robin") in channel_args(url)) == shared
