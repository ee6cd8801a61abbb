"""The client of programs with an event loop."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from sidrec import contract
from sidrec.client import wire
from sidrec.client.calls import DEFAULT_TIMEOUT_S, channel_args, settings
from sidrec.client.course import MAX_RETRIES, OnRetry, ignore
from sidrec.client.tls import connection_args
from sidrec.client.wire import Recommendation


class AsyncRecommendClient:
    """Asks one server, or the first healthy one of several; belongs to the event loop of its first call.

    Args:
        url: `host:port` of the gRPC door, or several: a sequence, or separated by commas.
        timeout_s: default budget of one call, retries and pauses included; the server answers with fewer beams when
            half of it is gone.
        retries: how often a call is asked again after every server failed; 0 for a probe that must see failures.
        on_retry: told of each retry.

    Raises:
        UsageError: `url` names no server.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = MAX_RETRIES,
        on_retry: OnRetry = ignore,
    ) -> None:
        self._settings = settings(url, timeout_s, retries, on_retry)
        self._connections: dict[str, triton.InferenceServerClient] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers, in order of preference."""
        return self._settings.servers.urls

    async def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[str] = (),
        history_time: Sequence[int] = (),
        k: int = contract.DEFAULT_K,
        exclude_seen: bool = False,
        context: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        model_version: str = "",
    ) -> Recommendation:
        """Return a server's answer; a cancelled call is cancelled on the server too, if it still waits there.

        Raises:
            UsageError: the request is invalid; the message says what is wrong.
            DeadlineError: no answer in time.
            UnavailableError: no server answers.
            OverloadError: the servers have too much to do.
            ServingError: the server failed, or its answer breaks the contract.
        """
        request = {
            "user_id": user_id,
            "history": history,
            "history_time": history_time,
            "k": k,
            "exclude_seen": exclude_seen,
            "context": context,
        }
        call = self._settings.begin(request, timeout_s, model_version)
        while True:
            attempt = call.course.attempt()
            arguments = call.arguments(attempt)
            try:
                result = await self._connection(attempt.url).infer(contract.MODEL_NAME, **arguments)
            except InferenceServerException as error:
                await asyncio.sleep(call.course.failed(attempt, error))
            else:
                call.course.answered(attempt)
                return wire.answer(result)

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _connection(self, url: str) -> triton.InferenceServerClient:
        # A channel belongs to the event loop that runs when it is made.
        if url not in self._connections:
            self._connections[url] = triton.InferenceServerClient(
                url, channel_args=channel_args(url), **connection_args()
            )
        return self._connections[url]
