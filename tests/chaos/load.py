"""Clients that never stop asking, and keep every answer and every failure."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidrec.client import Recommendation, RecommendClient
from sidrec.errors import SidrecError


@dataclass(frozen=True)
class Answered:
    """One answer, when it came and after how long."""

    answer: Recommendation
    at: float
    seconds: float


class Load:
    """A closed loop of a few clients, each asking again a moment after its answer.

    Args:
        ask: what one request is; its number rises and tells requests apart.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        clients: int = 4,
        ask: Callable[[int], Mapping[str, Any]] = lambda number: {"history": ["i3"]},
        retries: int = 0,
        timeout_s: float = 20.0,
    ) -> None:
        self.answers: list[Answered] = []
        self.failures: list[tuple[float, SidrecError]] = []
        self._url = url
        self._ask = ask
        self._options = {"retries": retries, "timeout_s": timeout_s}
        self._number = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._loop) for _ in range(clients)]

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _loop(self) -> None:
        with RecommendClient(self._url, **self._options) as client:  # type: ignore[arg-type]
            while not self._stop.is_set():
                request, began = self._ask(self._next()), time.monotonic()
                try:
                    answer = client.recommend(**request)
                except SidrecError as error:
                    self.failures.append((time.monotonic(), error))
                    time.sleep(0.05)
                else:
                    now = time.monotonic()
                    self.answers.append(Answered(answer, now, now - began))
                time.sleep(0.005)

    def wait_answers(self, more: int, *, seconds: float = 60) -> float:
        """Return when the `more`-th answer from now had come; fail after `seconds`."""
        wanted, deadline = len(self.answers) + more, time.monotonic() + seconds
        while len(self.answers) < wanted:
            newest = self.failures[-1:]
            assert time.monotonic() < deadline, f"{len(self.answers)} of {wanted} answers, last failure {newest}"
            time.sleep(0.01)
        return self.answers[wanted - 1].at

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
