"""What both clients share: their settings, and how a call begins."""

import ipaddress
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidrec.client import wire
from sidrec.client.course import MAX_RETRIES, Attempt, Course, OnRetry, RetryBudget, ignore
from sidrec.client.servers import Servers, parse_urls

DEFAULT_TIMEOUT_S = 2.0
# gRPC's own pauses before it connects again grow to two minutes; a server is back within seconds.
_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def channel_args(url: str) -> list[tuple[str, int | str]]:
    """Return how a connection to `url` behaves: a name may stand for many replicas, which then share the calls."""
    args: list[tuple[str, int | str]] = [*_CHANNEL]
    # By default one replica of a name would get every call for as long as it lives.
    return args if _is_one_machine(url) else [*args, ("grpc.lb_policy_name", "round_robin")]


def _is_one_machine(url: str) -> bool:
    host = url.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


@dataclass(frozen=True, slots=True)
class Settings:
    """How a client asks."""

    timeout_s: float
    retries: int
    on_retry: OnRetry
    servers: Servers
    budget: RetryBudget = field(default_factory=RetryBudget)

    def begin(self, request: Mapping[str, Any], timeout_s: float | None, model_version: str) -> "Call":
        """Return a call that has this long from now.

        Raises:
            UsageError: a value does not fit its tensor.
        """
        context = dict(request["context"] or {})
        # All attempts are one request: whoever counts requests by their id counts it once.
        context.setdefault("request_id", uuid.uuid4().hex)
        course = Course(
            self.servers,
            self.budget,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            retries=self.retries,
            pinned=bool(model_version),
            on_retry=self.on_retry,
        )
        return Call(course, {**request, "context": context}, model_version)


def settings(
    url: str | Sequence[str],
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retries: int = MAX_RETRIES,
    on_retry: OnRetry = ignore,
) -> Settings:
    """Return the settings of a client.

    Raises:
        UsageError: `url` names no servers.
    """
    urls = parse_urls(url if isinstance(url, str) else ",".join(url))
    return Settings(timeout_s, retries, on_retry, Servers(urls))


@dataclass(frozen=True, slots=True)
class Call:
    """One request under way."""

    course: Course
    request: dict[str, Any]
    model_version: str

    def arguments(self, attempt: Attempt) -> dict[str, Any]:
        """Return what tritonclient's `infer` is given; the server learns how long this attempt will wait.

        Raises:
            UsageError: a value does not fit its tensor.
        """
        context = wire.deadline(attempt.timeout_s) | self.request["context"]
        return {
            "inputs": wire.inputs(**{**self.request, "context": context}),
            "model_version": self.model_version,
            "outputs": wire.outputs(),
            "client_timeout": attempt.timeout_s,
        }
