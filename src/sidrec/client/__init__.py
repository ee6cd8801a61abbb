"""The gRPC door from outside: one call, one deadline, several servers; for threads and for asyncio.

Needs the `client` extra (tritonclient) and neither torch nor a running event loop to be imported. The gateway asks
through the same client, so what is asked again, when and where is decided in one place: `course.py`.
"""

from sidrec.client.course import Retry, RetryBudget
from sidrec.client.for_asyncio import AsyncRecommendClient
from sidrec.client.for_threads import RecommendClient
from sidrec.client.servers import parse_urls
from sidrec.client.statuses import (
    AccessError,
    ContractError,
    DeadlineError,
    OverloadError,
    UnavailableError,
    refusal,
)
from sidrec.client.wire import Recommendation, answer, deadline, inputs, outputs

__all__ = [
    "AccessError",
    "AsyncRecommendClient",
    "ContractError",
    "DeadlineError",
    "OverloadError",
    "RecommendClient",
    "Recommendation",
    "Retry",
    "RetryBudget",
    "UnavailableError",
    "answer",
    "deadline",
    "inputs",
    "outputs",
    "parse_urls",
    "refusal",
]
