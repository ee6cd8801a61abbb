"""The course of one call: whom to ask, for how long, and whether to ask again after a failure.

Recommending changes nothing on the server, and a call keeps its request id, so asking twice is safe; what must be
bounded is the load. Moving on to another server is free, because a call does it at most once a server: to one that is
thought healthy, and where none is, to one that rests, which may have come back unnoticed. Asking again where all have
failed this call is paid from a bucket that answers fill by a tenth each, comes after a pause that is drawn at random,
and happens a few times a call at most. Nothing happens after the deadline.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tritonclient.utils import InferenceServerException

from sidrec.client.servers import Servers
from sidrec.client.statuses import DeadlineError, OverloadError, UnavailableError, refusal, status_of

MAX_RETRIES = 4
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 0.5
# With a second server at hand, a silent one is left after half of the time, but never before this long: a tight
# deadline is spent on one server whole, and to have missed it says nothing about the server.
_FAIR_CHANCE_S = 0.5


@dataclass(slots=True)
class RetryBudget:
    """Tokens for retries: each answer adds `share`, each retry takes one, `size` bounds a burst."""

    share: float = 0.1
    size: float = 10.0
    tokens: float = 10.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def earn(self) -> None:
        """Add what one answered request is worth."""
        with self._lock:
            self.tokens = min(self.size, self.tokens + self.share)

    def spend(self) -> bool:
        """Take one retry; False when there is none left."""
        with self._lock:
            if self.tokens < 1:
                return False
            self.tokens -= 1
            return True


@dataclass(frozen=True, slots=True)
class Retry:
    """Why a call is asked again: what `url` said, and whether it goes to another server."""

    url: str
    status: str
    moved: bool
    pause_s: float


OnRetry = Callable[[Retry], None]


def ignore(retry: Retry) -> None:
    """Do nothing about a retry."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one server."""

    url: str
    timeout_s: float
    started: float


class Course:
    """One call within `timeout_s` seconds.

    Args:
        retries: how often to ask again after every server failed.
        pinned: a model version was asked for by number.
    """

    def __init__(
        self,
        servers: Servers,
        budget: RetryBudget,
        *,
        timeout_s: float,
        retries: int = MAX_RETRIES,
        pinned: bool = False,
        on_retry: OnRetry = ignore,
    ) -> None:
        self._servers = servers
        self._budget = budget
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._retries_left = retries
        self._pinned = pinned
        self._on_retry = on_retry
        self._asked: set[str] = set()
        self._pause_s = _FIRST_PAUSE_S

    def attempt(self) -> Attempt:
        """Return the next request to make.

        Raises:
            DeadlineError: there is no time left for one.
        """
        now = time.monotonic()
        left_s = self._deadline - now
        url = self._next()
        assert url is not None, "a call that has asked every server either ended or began anew"
        if left_s <= 0:
            raise DeadlineError(
                f"no answer from {url} within {self._timeout_s:g} s", next_step="allow more time, or ask again"
            )
        if self._servers.choose(self._asked | {url}) is not None:
            left_s = max(left_s / 2, min(left_s, _FAIR_CHANCE_S))
        return Attempt(url, left_s, now)

    def answered(self, attempt: Attempt) -> None:
        """Note that this attempt got an answer, whatever it says."""
        self._servers.answered(attempt.url, attempt.started)
        self._budget.earn()

    def failed(self, attempt: Attempt, error: InferenceServerException) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            UsageError: the request is invalid.
            ServingError: asking again does not help, or costs more than is left.
        """
        ours = refusal(error, attempt.url, pinned=self._pinned)
        # A request that was refused or failed by itself was answered by a server that works.
        if isinstance(ours, UnavailableError) or (
            isinstance(ours, DeadlineError) and attempt.timeout_s >= _FAIR_CHANCE_S
        ):
            self._servers.failed(attempt.url, attempt.started)
        if not isinstance(ours, UnavailableError | DeadlineError | OverloadError):
            raise ours from error
        self._asked.add(attempt.url)
        left_s = self._deadline - time.monotonic()
        if left_s > 0 and self._next() is not None:
            self._on_retry(Retry(attempt.url, status_of(error), True, 0.0))
            return 0.0
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        affordable = self._retries_left > 0 and pause_s < left_s
        if not isinstance(ours, UnavailableError) or not affordable or not self._budget.spend():
            raise ours from error
        self._retries_left -= 1
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        self._asked.clear()
        self._on_retry(Retry(attempt.url, status_of(error), False, pause_s))
        return pause_s

    def _next(self) -> str | None:
        """Return the best server that this call has not asked yet."""
        return self._servers.choose(self._asked) or self._servers.least_bad(self._asked)
