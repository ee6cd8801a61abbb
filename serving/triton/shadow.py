"""What another bundle would have answered: asked behind the answers, logged apart, never sent.

It costs a user nothing but contention for one thread: a question waits until no batch is being answered, is dropped
once it is older than a request's deadline, and no more than `_WAITING` wait at all. Whatever is dropped is counted.
"""

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from serving.triton.answering import Served, answer_fault, exposure
from sidrec.exposure import Exposure
from sidrec.recommender import Recommender
from sidrec.release.revision import SHADOW, Arm, BundleRef, Revision

log = logging.getLogger(__name__)

Outcome = Literal["answered", "skipped", "failed"]
_WAITING: Final = 64


class Shadow:
    """A revision's shadow bundle with a thread of its own.

    Args:
        ref: the shadow's bundle.
        recommender: of that bundle, used by nobody else.
        write: takes the row of an answer.
        count: is told what became of each request that was offered.
    """

    def __init__(
        self,
        revision: Revision,
        ref: BundleRef,
        recommender: Recommender,
        *,
        write: Callable[[Exposure], None],
        count: Callable[[Outcome], None],
    ) -> None:
        self._revision = revision
        self._arm = Arm(name=SHADOW, bundle=ref, share=0.0)
        self._recommender = recommender
        self._write = write
        self._count = count
        self._waiting: deque[tuple[Served, float]] = deque()
        self._closed = False
        self._answering = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="shadow")
        self._thread.start()

    def set_takedown(self, item_ids: Iterable[str]) -> None:
        """Keep exactly these items out of the shadow's answers, as out of the arms'."""
        self._recommender.set_takedown(item_ids)

    def stand_back(self) -> None:
        """Begin nothing until the next `offer`: a batch is being answered."""
        with self._changed:
            self._answering = True

    def offer(self, answered: Sequence[Served]) -> None:
        """Take the requests of a batch that was answered; those that were late already, or too many, are skipped."""
        until = time.monotonic() + self._revision.deadline_ms / 1000
        skipped = 0
        with self._changed:
            self._answering = False
            for one in answered:
                if one.answer.source == "degraded" or len(self._waiting) >= _WAITING or self._closed:
                    skipped += 1
                else:
                    self._waiting.append((one, until))
            self._changed.notify()
        for _ in range(skipped):
            self._count("skipped")

    def close(self) -> None:
        """Stop after the question that is being asked; those that wait are skipped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            served, until = job
            if self._closed or time.monotonic() > until:
                self._count("skipped")
                continue
            try:
                self._write(self._ask(served))
            except Exception:
                # The boundary: whatever the shadow's model raises is no user's trouble, and the next may do better.
                log.exception("event=shadow_failed bundle=%s", self._recommender.bundle_id)
                self._count("failed")
            else:
                self._count("answered")

    def _next(self) -> tuple[Served, float] | None:
        """Return the oldest request that waits, once no batch is being answered; None at the end."""
        with self._changed:
            while True:
                if self._waiting and (self._closed or not self._answering):
                    return self._waiting.popleft()
                if self._closed:
                    return None
                self._changed.wait()

    def _ask(self, served: Served) -> Exposure:
        started = time.monotonic()
        until = started + self._revision.deadline_ms / 2000
        query = dataclasses.replace(served.query, k=served.request.k, think_until=until)
        [answer] = self._recommender.recommend([query], beam_width=self._revision.beam_width)
        fault = answer_fault(answer, served.request.k, self._recommender.catalog)
        if fault is not None:
            raise ValueError(f"the shadow's answer broke the contract: {fault}")
        own = dataclasses.replace(
            served, arm=self._arm, answer=answer, counts=False, group_size=1, ranks=None, propensities=None
        )
        return exposure(own, self._revision, (time.monotonic() - started) * 1000)
