"""Users' histories from the online feature store, by a deadline, with their age.

One thread owns the store. Who asks waits no longer than the deadline: a store that stalls or fails is the
answer `error`, and the thread goes on when the store does. Runs under Triton's numpy 1.26.
"""

import functools
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sidrec import home
from sidrec.clock import DAY_S
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

_log = logging.getLogger(__name__)

Status = Literal["fresh", "stale", "missing", "error"]
Row = tuple[tuple[str, ...], tuple[int, ...]]

FEATURE_SERVICE = "recommend_v1"

_NO_ROW: Row = ((), ())
_REOPEN_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """What the store knows of one user; it has items only where `status` is fresh."""

    item_ids: tuple[str, ...]
    times: tuple[int, ...]
    age_s: int | None
    status: Status


@dataclass(slots=True)
class _Job:
    user_ids: list[str]
    overdue_at: float
    done: threading.Event = field(default_factory=threading.Event)
    rows: dict[str, Row] | None = None
    abandoned: bool = False


class HistoryReader:
    """Reads histories of the live feature store; follows it when a pipeline run puts another in its place."""

    def __init__(self, feast_dir: Path | None = None, *, max_age_days: int | None = None) -> None:
        """Start the reading thread, which opens the store at once.

        Args:
            feast_dir: the feature store's folder, default `home.feast_dir()`.
            max_age_days: a history whose newest event is older is stale; default the store's own setting.
        """
        self._feast_dir = (feast_dir or home.feast_dir()).absolute()
        self._max_age_days = max_age_days
        self._store_max_age_days: int | None = None
        self._store: FeatureStore | None = None
        self._service: FeatureService | None = None
        self._generation = ""
        self._last_failure = -math.inf
        self._last_error: str | None = None
        self._failing_since: float | None = None
        self._logged: str | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._current: _Job | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="history-reader")
        self._thread.start()

    @property
    def last_error(self) -> str | None:
        """Why the store's newest answer was an error, None if it was an answer."""
        return self._last_error

    def wait_open(self, timeout_s: float) -> bool:
        """Return whether the first try to open the store was over in time (`last_error` says how it went)."""
        return self._opened.wait(timeout_s)

    def read(
        self,
        user_ids: Sequence[str],
        *,
        now: int | Sequence[int],
        deadline_ms: float = 200.0,
        until: Sequence[int | None] | None = None,
    ) -> list[StoredHistory]:
        """Return each user's history, in order, after at most `deadline_ms`.

        All users are looked up in one read of the store.

        Args:
            now: unix seconds that ages are measured against, for all users or one each.
            until: for each user, the time after which its events are hidden (None hides nothing): a replayed
                request must not see what was bought after it.
        """
        nows = [now] * len(user_ids) if isinstance(now, int) else list(now)
        untils = [None] * len(user_ids) if until is None else list(until)
        if not len(user_ids) == len(nows) == len(untils):
            raise UsageError(f"{len(user_ids)} users need as many times, seen {len(nows)} and {len(untils)}")
        wanted = sorted({user_id for user_id in user_ids if user_id})
        rows = self._rows(wanted, deadline_ms) if wanted else {}
        if rows is None:
            return [StoredHistory((), (), None, "error") for _ in user_ids]
        return [
            self._judge(rows.get(user_id, _NO_ROW), at, hidden_after)
            for user_id, at, hidden_after in zip(user_ids, nows, untils, strict=True)
        ]

    def close(self) -> None:
        """Stop the reading thread after what it is doing."""
        self._jobs.put(None)
        self._thread.join(timeout=10.0)

    def _judge(self, row: Row, now: int, until: int | None) -> StoredHistory:
        item_ids, times = row
        if until is not None:
            seen = sum(time_ <= until for time_ in times)
            item_ids, times = item_ids[:seen], times[:seen]
        if not item_ids:
            return StoredHistory((), (), None, "missing")
        age_s = max(0, now - times[-1])
        limit = self._store_max_age_days if self._max_age_days is None else self._max_age_days
        if limit is not None and age_s > limit * DAY_S:
            return StoredHistory((), (), age_s, "stale")
        return StoredHistory(item_ids, times, age_s, "fresh")

    def _rows(self, user_ids: list[str], deadline_ms: float) -> dict[str, Row] | None:
        current = self._current
        if current is not None and time.monotonic() > current.overdue_at:
            # The store is stalled under an earlier read: waiting behind it would stall this caller too.
            return None
        job = _Job(user_ids, overdue_at=time.monotonic() + deadline_ms / 1000)
        self._jobs.put(job)
        if not job.done.wait(deadline_ms / 1000):
            job.abandoned = True
            self._last_error = f"no answer within {deadline_ms:g} ms"
            return None
        return job.rows

    def _run(self) -> None:
        self._try(self._follow_live_store)
        self._opened.set()
        while (job := self._jobs.get()) is not None:
            if job.abandoned:
                continue
            self._current = job
            self._try(functools.partial(self._answer, job))
            self._current = None
            job.done.set()
        self._drop_store()

    def _try(self, action: Callable[[], None]) -> None:
        """Run `action`; whatever the store throws becomes `last_error`, because this thread must live on."""
        try:
            action()
        except Exception as error:  # feast raises every kind; the caller sees status "error"
            self._last_failure = time.monotonic()
            message = f"{type(error).__name__}: {error}"
            if self._failing_since is None:
                self._failing_since = time.monotonic()
            if message != self._logged:
                _log.warning("history_read_failed answers=cold until the store is back error=%s", message)
                self._logged = message
            self._last_error = message
            self._drop_store()

    def _answer(self, job: _Job) -> None:
        if self._store is None and time.monotonic() - self._last_failure < _REOPEN_AFTER_S:
            return  # a store that just failed is not opened again for every request
        self._follow_live_store()
        answer = self._lookup(job.user_ids)
        job.rows = {
            user_id: (tuple(item_ids or ()), tuple(times or ()))
            for user_id, item_ids, times in zip(answer["user_id"], answer["item_ids"], answer["times"], strict=True)
        }
        self._last_error = None
        if self._failing_since is not None:
            _log.warning("history_read_recovered after_s=%.1f", time.monotonic() - self._failing_since)
            self._failing_since = self._logged = None

    def _lookup(self, user_ids: list[str]) -> dict[str, Any]:
        assert self._store is not None
        assert self._service is not None
        rows = [{"user_id": user_id} for user_id in user_ids]
        answer: dict[str, Any] = self._store.get_online_features(features=self._service, entity_rows=rows).to_dict()
        return answer

    def _follow_live_store(self) -> None:
        """Open the store that is live now, unless it is open already."""
        from feature_repo.store import live_folder, open_store, read_state

        try:
            generation = os.readlink(self._feast_dir / "live")
        except FileNotFoundError:
            generation = ""
        if self._store is not None and generation == self._generation:
            return
        folder = live_folder(self._feast_dir)
        self._store = open_store(folder)
        self._service = self._store.get_feature_service(FEATURE_SERVICE)
        self._store_max_age_days = read_state(folder).max_age_days
        # Feast connects at the first read: pay for it here.
        self._lookup([""])
        self._generation = generation

    def _drop_store(self) -> None:
        self._store = None
