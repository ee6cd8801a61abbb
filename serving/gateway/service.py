"""The HTTP door: JSON in, Triton's answer out; no model, no torch.

With SIDREC_TRITON_URL it asks that server; without, it starts one on this machine and keeps it answering.
Settings come from the environment: SIDREC_GATEWAY_TOKEN (bearer token; none = open), SIDREC_GATEWAY_DEADLINE_MS,
SIDREC_GATEWAY_MAX_WAITING, SIDREC_GRPC_PORT (of the server it starts).
"""

import asyncio
import hmac
import logging
import os
import signal
import sys
from typing import Any

import bentoml
from prometheus_client import Counter
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.messages import (
    ErrorResponse,
    EventsRequest,
    EventsResponse,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
)
from serving.gateway.triton_client import DeadlineError, OverloadError, TritonClient
from sidrec.client import Recommendation
from sidrec.errors import BusyError, ServingError, SidrecError, UsageError
from sidrec.process import die_with_parent

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 4 * 2**20
_OPEN_PATHS = ("/livez", "/readyz", "/healthz")


def triton_url() -> str:
    """Return the server to ask: SIDREC_TRITON_URL, else the one that this service starts."""
    return os.environ.get("SIDREC_TRITON_URL") or f"127.0.0.1:{os.environ.get('SIDREC_GRPC_PORT', '8001')}"


class Guard:
    """Refuses what comes without the token, and bodies that no request needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._token = os.environ.get("SIDREC_GATEWAY_TOKEN", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 413."""
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            headers = dict(scope["headers"])
            given = headers.get(b"authorization", b"")
            if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                await _refusal(401, "unauthorized", "a bearer token is needed", retry=False)(scope, receive, send)
                return
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
                text = f"a body has at most {_MAX_BODY_BYTES} bytes"
                await _refusal(413, "too_large", text, retry=False)(scope, receive, send)
                return
        await self._app(scope, receive, send)


@bentoml.service(name="sidrec_gateway", workers=1, traffic={"timeout": 60})
class Gateway:
    """Recommendations and events over HTTP."""

    def __init__(self) -> None:
        # BentoML's workers outlive a killed parent and keep its port.
        die_with_parent("gateway")
        self._deadline_s = int(os.environ.get("SIDREC_GATEWAY_DEADLINE_MS", "2000")) / 1000
        self._answers = Counter("sidrec_gateway_answers_total", "Answers by source", ["source"])
        self._failures = Counter("sidrec_gateway_failures_total", "Requests without an answer", ["error"])
        self._retries = Counter("sidrec_gateway_retries_total", "Requests asked again", ["status"])
        self._triton = TritonClient(
            triton_url(),
            max_waiting=int(os.environ.get("SIDREC_GATEWAY_MAX_WAITING", "64")),
            on_retry=lambda status: self._retries.labels(status=status).inc(),
        )

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def start_triton() -> None:
        """Start a supervised server where none was given; it ends with this process."""
        if os.environ.get("SIDREC_TRITON_URL"):
            return
        from serving import child
        from sidrec import home

        child.spawn(
            [sys.executable, "-m", "serving.supervisor", os.environ.get("SIDREC_GRPC_PORT", "8001")],
            env=os.environ,
            log=home.serving_dir() / "supervisor.log",
            on_parent_death=signal.SIGTERM,
        )

    @bentoml.api(route="/v1/recommend")  # type: ignore[untyped-decorator]
    async def recommend(self, request: RecommendRequest, /) -> RecommendResponse:
        """Recommend items to a user, or to a history."""
        try:
            answer = await self._triton.recommend(
                deadline_s=self._deadline_s,
                user_id=request.user_id,
                history=request.history,
                history_time=request.history_time,
                k=request.k,
                exclude_seen=request.exclude_seen,
                context=request.context.model_dump(exclude_defaults=True) if request.context else {},
            )
        except SidrecError as error:
            return self._failed(error)  # type: ignore[return-value]
        self._answers.labels(source=answer.source).inc()
        return _response(answer)

    @bentoml.api(route="/v1/events")  # type: ignore[untyped-decorator]
    async def events(self, request: EventsRequest, /) -> EventsResponse:
        """Record what users did; sending an event twice counts once."""
        from serving.events import push_events

        try:
            pushed = await asyncio.to_thread(push_events, request.events)
        except SidrecError as error:
            return self._failed(error)  # type: ignore[return-value]
        return EventsResponse(sent=pushed.sent, new=pushed.new, duplicates=pushed.duplicates, users=pushed.users)

    async def __is_ready__(self) -> bool:
        """Ready means that a real inference was answered."""
        return await self._triton.ready()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Close the connection."""
        await self._triton.close()

    def _failed(self, error: SidrecError) -> JSONResponse:
        name, status, retry = _kind(error)
        self._failures.labels(error=name).inc()
        if status >= 500:
            # The cause is for this log; a client is told only what it can act on.
            log.error("event=no_answer error=%s message=%r", name, error.message)
        return _refusal(status, name, error.message if status < 500 else _PUBLIC[name], retry=retry)


_PUBLIC = {
    "overloaded": "too many requests are waiting; try again",
    "deadline": "no answer within the deadline",
    "busy": "another writer holds the store; send the same events again",
    "unavailable": "no server answers right now; try again",
}


def _kind(error: SidrecError) -> tuple[str, int, bool]:
    match error:
        case UsageError():
            return "invalid", 400, False
        case OverloadError():
            return "overloaded", 503, True
        case DeadlineError():
            return "deadline", 504, True
        case BusyError():
            return "busy", 503, True
        case ServingError():
            return "unavailable", 503, True
        case _:
            raise error


def _refusal(status: int, name: str, message: str, *, retry: bool) -> JSONResponse:
    headers = {"Retry-After": "1"} if retry else {}
    body = ErrorResponse(error=name, message=message, retry=retry).model_dump()
    return JSONResponse(body, status_code=status, headers=headers)


def _response(answer: Recommendation) -> RecommendResponse:
    rows: Any = zip(answer.item_ids, answer.scores.tolist(), answer.semantic_ids.tolist(), strict=True)
    return RecommendResponse(
        items=[RecommendedItem(item_id=item, score=score, semantic_id=codes) for item, score, codes in rows],
        source=answer.source,
        arm=answer.arm,
        bundle_id=answer.bundle_id,
        revision=int(answer.model_version),
        request_id=answer.request_id,
        rationale=answer.rationale,
    )


Gateway.add_asgi_middleware(Guard)  # type: ignore[attr-defined]
