"""The HTTP door: JSON in, Triton's answer out; no model, no torch.

With SIDREC_TRITON_URL it asks that server, or the first healthy one of several separated by commas; without, it
starts one on this machine and keeps it answering. Settings come from the environment: SIDREC_GATEWAY_TOKEN (bearer
token; none = open) or SIDREC_GATEWAY_TOKENS (a file of them, one a line, read again as it changes),
SIDREC_GATEWAY_DEADLINE_MS, SIDREC_GATEWAY_MAX_WAITING, SIDREC_GRPC_PORT (of the server it starts).
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import bentoml
from prometheus_client import Counter, Gauge
from starlette.responses import JSONResponse

from serving.gateway.admission import Admission
from serving.gateway.guard import Guard
from serving.gateway.messages import (
    EventsRequest,
    EventsResponse,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
)
from serving.gateway.refusals import name_of, refusal
from sidrec.client import AsyncRecommendClient, OverloadError, Recommendation, Retry
from sidrec.errors import SidrecError
from sidrec.process import die_with_parent

log = logging.getLogger(__name__)

_READY_S = 3.0
_CANARY = {"canary": True, "request_id": "gateway-readiness"}


def triton_url() -> str:
    """Return the servers to ask: SIDREC_TRITON_URL, else the one that this service starts."""
    return os.environ.get("SIDREC_TRITON_URL") or f"127.0.0.1:{os.environ.get('SIDREC_GRPC_PORT', '8001')}"


@bentoml.service(name="sidrec_gateway", workers=1, traffic={"timeout": 60})
class Gateway:
    """Recommendations and events over HTTP."""

    def __init__(self) -> None:
        # BentoML's workers outlive a killed parent and keep its port.
        die_with_parent("gateway")
        self._deadline_s = int(os.environ.get("SIDREC_GATEWAY_DEADLINE_MS", "2000")) / 1000
        self._answers = Counter("sidrec_gateway_answers_total", "Answers by source", ["source"])
        self._failures = Counter("sidrec_gateway_failures_total", "Requests without an answer", ["error"])
        self._retries = Counter("sidrec_gateway_retries_total", "Requests asked again", ["status", "moved"])
        self._admission = Admission(int(os.environ.get("SIDREC_GATEWAY_MAX_WAITING", "64")))
        self._waiting = Gauge("sidrec_gateway_waiting", "Requests in flight", multiprocess_mode="livesum")
        self._triton = AsyncRecommendClient(triton_url(), timeout_s=self._deadline_s, on_retry=self._count_retry)

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
            with self._admission(), self._waiting.track_inprogress():
                answer = await self._triton.recommend(
                    user_id=request.user_id,
                    history=request.history,
                    history_time=request.history_time,
                    k=request.k,
                    exclude_seen=request.exclude_seen,
                    context=request.context.model_dump(exclude_defaults=True) if request.context else None,
                    timeout_s=min(self._deadline_s, (request.deadline_ms or 60_000) / 1000),
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
        try:
            with self._admission():
                await self._triton.recommend(k=1, context=_CANARY, timeout_s=_READY_S)
        except OverloadError:
            return True  # busy, and so alive
        except SidrecError:
            return False
        return True

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Close the connection."""
        await self._triton.close()

    def _count_retry(self, retry: Retry) -> None:
        self._retries.labels(status=retry.status, moved=str(retry.moved).lower()).inc()

    def _failed(self, error: SidrecError) -> JSONResponse:
        name = name_of(error)
        self._failures.labels(error=name).inc()
        if name == "invalid":
            return refusal(name, error.message.removeprefix("the server refused the request: "))
        # The cause is for this log; a caller is told only what it can act on.
        log.error("event=no_answer error=%s message=%r", name, error.message)
        return refusal(name)


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
