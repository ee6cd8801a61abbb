"""Which of several servers to ask: the first healthy one, and the same one until it fails.

Nothing probes in the background: what calls meet is all that is known. A server that failed is passed over for a
while that doubles with each failure in a row, and is then thought healthy until somebody meets the contrary.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sidrec.errors import UsageError

_FIRST_REST_S = 1.0
_MAX_REST_S = 30.0
_NEVER = float("-inf")


def parse_urls(text: str) -> tuple[str, ...]:
    """Return the `host:port` urls of a comma-separated list, in its order.

    Raises:
        UsageError: there is none, one stands twice, or one has no port or a scheme of HTTP.
    """
    urls = tuple(url.strip() for url in text.split(",") if url.strip())
    wrong = [url for url in urls if url.startswith(("http://", "https://")) or not url.rpartition(":")[2].isdigit()]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is no gRPC address; expected host:port", next_step="e.g. 127.0.0.1:8001")
    if not urls or len(set(urls)) < len(urls):
        raise UsageError(f"{text!r} names {'no server' if not urls else 'a server twice'}; expected host:port,…")
    return urls


@dataclass(slots=True)
class _Server:
    url: str
    strikes: int = 0
    failed_at: float = _NEVER
    rests_until: float = _NEVER


class Servers:
    """What the calls of one client have met; safe to share between threads.

    Args:
        urls: in order of preference.
        clock: seconds, rising.
        jitter: from [0, 1); spreads what many clients do after one failure.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.urls = tuple(urls)
        self._servers = {url: _Server(url) for url in urls}
        self._current = self.urls[0]
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()

    def choose(self, passed: Collection[str] = ()) -> str | None:
        """Return the server to ask, leaving out those in `passed`; None when no other one is thought healthy."""
        with self._lock:
            return self._healthy(passed)

    def least_bad(self, passed: Collection[str] = ()) -> str | None:
        """Return the server outside `passed` whose rest ends first; None when all are in it."""
        with self._lock:
            others = [server for url, server in self._servers.items() if url not in passed]
            return min(others, key=lambda server: server.rests_until).url if others else None

    def failed(self, url: str, started: float) -> None:
        """Let a server rest that failed a request started at `started`.

        Requests that were in flight together fail together and count once.
        """
        with self._lock:
            server = self._servers[url]
            if started < server.failed_at:
                return
            server.strikes += 1
            server.failed_at = self._clock()
            rest_s = min(_FIRST_REST_S * 2 ** min(server.strikes - 1, 10), _MAX_REST_S)
            server.rests_until = server.failed_at + rest_s * (0.5 + self._jitter() / 2)
            if self._current == url:
                self._current = self._healthy(()) or url

    def answered(self, url: str, started: float) -> None:
        """Take a server that answered for healthy, unless it failed a request since this one started."""
        with self._lock:
            server = self._servers[url]
            if started < server.failed_at:
                return
            server.strikes, server.rests_until = 0, _NEVER
            if not self._is_healthy(self._current):
                self._current = url

    def _healthy(self, passed: Collection[str]) -> str | None:
        candidates = (self._current, *self.urls)
        return next((url for url in candidates if url not in passed and self._is_healthy(url)), None)

    def _is_healthy(self, url: str) -> bool:
        return self._servers[url].rests_until <= self._clock()
