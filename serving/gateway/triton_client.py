"""Asks Triton for one caller: within the caller's deadline, and with no more retries than the budget allows.

A retry helps when the server drains, restarts or lost its stub; it hurts when everybody retries at once. So retries
are paid from a bucket that successful requests fill by a tenth each.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from sidrec import client, contract
from sidrec.client import Recommendation
from sidrec.errors import ServingError, UsageError

_CANARY = {"canary": True, "request_id": "gateway-readiness"}
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 0.5
_UNHEALTHY = "is not healthy"


class OverloadError(ServingError):
    """Too many requests are waiting already."""


class DeadlineError(ServingError):
    """The caller's deadline passed without an answer."""


@dataclass(slots=True)
class RetryBudget:
    """Tokens for retries: each answer adds `share`, each retry takes one, `size` bounds a burst."""

    share: float = 0.1
    size: float = 10.0
    tokens: float = field(default=10.0)

    def earn(self) -> None:
        """Add what one answered request is worth."""
        self.tokens = min(self.size, self.tokens + self.share)

    def spend(self) -> bool:
        """Take one retry; False when there is none left."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class TritonClient:
    """One connection to one server, for one event loop.

    Args:
        url: `host:port` of the gRPC door.
        max_waiting: requests in flight beyond which the next one is refused at once.
        on_retry: called with each retry's status.
    """

    def __init__(
        self, url: str, *, max_waiting: int = 64, on_retry: Callable[[str], None] = lambda status: None
    ) -> None:
        self.url = url
        self.budget = RetryBudget()
        self._max_waiting = max_waiting
        self._waiting = 0
        self._on_retry = on_retry
        self._client: triton.InferenceServerClient | None = None

    async def recommend(self, *, deadline_s: float, context: dict[str, Any], **request: Any) -> Recommendation:
        """Return Triton's answer.

        Raises:
            UsageError: Triton refused the request as invalid.
            OverloadError: too many requests wait already.
            DeadlineError: no answer in time.
            ServingError: no answer, and no retry left.
        """
        if self._waiting >= self._max_waiting:
            raise OverloadError(f"{self._waiting} requests are waiting already", next_step="try again later")
        self._waiting += 1
        try:
            return await self._within(time.monotonic() + deadline_s, context, request)
        finally:
            self._waiting -= 1

    async def ready(self, *, timeout_s: float = 3.0) -> bool:
        """Return whether a real inference is answered."""
        try:
            await self.recommend(deadline_s=timeout_s, context=dict(_CANARY), k=1)
        except OverloadError:
            return True  # busy, and so alive
        except (ServingError, UsageError):
            return False
        return True

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _within(self, deadline: float, context: dict[str, Any], request: dict[str, Any]) -> Recommendation:
        pause = _FIRST_PAUSE_S
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"no answer from {self.url} within the deadline")
            try:
                answer = await self._once(left, context, request)
            except InferenceServerException as error:
                if not retriable(error) or pause >= deadline - time.monotonic() or not self.budget.spend():
                    raise _as_ours(error, self.url) from error
                self._on_retry(str(error.status()))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_S)
            else:
                self.budget.earn()
                return answer

    async def _once(self, left_s: float, context: dict[str, Any], request: dict[str, Any]) -> Recommendation:
        if self._client is None:
            self._client = triton.InferenceServerClient(self.url)
        result = await self._client.infer(
            contract.MODEL_NAME,
            client.inputs(**request, context=client.deadline(left_s) | context),
            outputs=client.outputs(),
            client_timeout=left_s,
        )
        return client.answer(result)


def retriable(error: InferenceServerException) -> bool:
    """Return whether asking again can help: the server drains (then it has no model), restarts, or lost its stub."""
    status = str(error.status())
    return status in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND") or (
        status == "StatusCode.INTERNAL" and _UNHEALTHY in error.message()
    )


def _as_ours(error: InferenceServerException, url: str) -> UsageError | ServingError:
    if str(error.status()) == "StatusCode.DEADLINE_EXCEEDED":
        return DeadlineError(f"no answer from {url} within the deadline")
    return client.refusal(error, url)
