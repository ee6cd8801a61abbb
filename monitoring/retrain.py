"""A retrain that drift asks for: one request at a time, due after a cool-down, taken by the scheduled run.

Asking trains nothing and deploys nothing. `sidrec run --if-queued` takes the request when it is due; what comes out of
that run is a candidate like any other.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from sidrec import files, home

SCHEMA_VERSION: Final = 1
COOLDOWN_DAYS = 7.0


class Request(BaseModel):
    """Who asked for a retrain, why, and from when it may start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked_at: datetime
    due_at: datetime
    who: str
    why: str


class Queue(BaseModel):
    """The one request that waits, and when the last one was taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    waiting: Request | None = None
    taken_at: datetime | None = None


def path() -> Path:
    """Return the queue's file."""
    return home.monitoring_dir() / "retrain.json"


def read() -> Queue:
    """Return the queue, empty before the first request."""
    return Queue.model_validate(files.read_json(path())) if path().exists() else Queue()


def ask(*, who: str, why: str, now: datetime, cooldown_days: float = COOLDOWN_DAYS) -> tuple[Request, bool]:
    """Return the request that waits now and whether it is this one; drift that goes on asks once.

    It is due at once, or where a retrain was taken within the cool-down, when that is over: a model needs time to be
    judged before the next one is made.
    """
    queue = read()
    if queue.waiting is not None:
        return queue.waiting, False
    rested = now if queue.taken_at is None else queue.taken_at + timedelta(days=cooldown_days)
    request = Request(asked_at=now, due_at=max(now, rested), who=who, why=why)
    _write(queue.model_copy(update={"waiting": request}))
    return request, True


def due(*, now: datetime) -> Request | None:
    """Return the request that a scheduled run has to carry out now, None where none waits or it is too early."""
    waiting = read().waiting
    return waiting if waiting is not None and now >= waiting.due_at else None


def taken(*, now: datetime) -> None:
    """Close the request that waits: its run succeeded. One that failed stays, for the next schedule."""
    _write(Queue(waiting=None, taken_at=now))


def _write(queue: Queue) -> None:
    files.write_json_atomic(path(), queue.model_dump(mode="json"))
