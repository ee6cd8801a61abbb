"""One request's tensors become one parsed request, or one sentence saying what is wrong with it."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidrec import contract
from sidrec.errors import UsageError

ReadTensor = Callable[[str], "NDArray[Any] | None"]

_MAX_TIME = 253_402_300_799  # the last second of the year 9999
_MAX_REQUEST_ID = 128
_MAX_SURFACE = 64


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What a client asked, checked; `user_id` None and an empty history mean absent."""

    user_id: str | None
    history: tuple[str, ...]
    history_time: tuple[int, ...]
    k: int
    exclude_seen: bool
    request_id: str
    surface: str | None
    event_time: int | None
    sent_at_ms: int | None
    deadline_ms: int | None
    canary: bool
    rationale: bool


def parse(read: ReadTensor) -> ParsedRequest:
    """Return the request whose tensors `read` gives by name (None where one was not sent).

    Raises:
        UsageError: a value breaks the contract; the message is meant for the client.
    """
    values = {spec.name: _row(spec, read(spec.name)) for spec in contract.INPUTS}
    history = tuple(_text(item, "HISTORY", contract.MAX_ID_BYTES) for item in values["HISTORY"])
    if len(history) > contract.MAX_HISTORY:
        raise UsageError(f"HISTORY has {len(history)} items, at most {contract.MAX_HISTORY} are allowed")
    if "" in history:
        raise UsageError(f"HISTORY[{history.index('')}] is empty; send no item rather than an empty one")
    k = int(values["K"][0]) if values["K"] else contract.DEFAULT_K
    if not 1 <= k <= contract.MAX_K:
        raise UsageError(f"K is {k}, expected 1..{contract.MAX_K}")
    context = _context(_text(values["CONTEXT"][0], "CONTEXT", contract.MAX_CONTEXT_BYTES) if values["CONTEXT"] else "")
    return ParsedRequest(
        user_id=(_text(values["USER_ID"][0], "USER_ID", contract.MAX_ID_BYTES) or None) if values["USER_ID"] else None,
        history=history,
        history_time=_times(values["HISTORY_TIME"], len(history)),
        k=k,
        exclude_seen=bool(values["EXCLUDE_SEEN"][0]) if values["EXCLUDE_SEEN"] else False,
        request_id=_short(context, "request_id", _MAX_REQUEST_ID) or uuid.uuid4().hex,
        surface=_short(context, "surface", _MAX_SURFACE),
        event_time=_integer(context, "event_time", _MAX_TIME),
        sent_at_ms=_integer(context, "sent_at_ms", _MAX_TIME * 1000),
        deadline_ms=_integer(context, "deadline_ms", 3_600_000),
        canary=context.get("canary") is True,
        rationale=context.get("rationale") is True,
    )


def _row(spec: contract.TensorSpec, array: "NDArray[Any] | None") -> list[Any]:
    if array is None:
        return []
    if array.ndim and array.shape[0] != 1:
        raise UsageError(f"{spec.name} has a batch of {array.shape[0]}; a request holds one user, its batch is 1")
    if not spec.fits(array):
        raise UsageError(
            f"{spec.name} has shape {list(array.shape)} and type {array.dtype}, expected [1, ...] of its type"
        )
    row: list[Any] = array[0].tolist()
    return row


def _text(value: bytes, name: str, limit: int) -> str:
    if len(value) > limit:
        raise UsageError(f"{name} has {len(value)} bytes, at most {limit} are allowed")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise UsageError(f"{name} holds a NUL byte")
    return text


def _times(values: list[int], num_items: int) -> tuple[int, ...]:
    if not values:
        return ()
    if len(values) != num_items:
        raise UsageError(f"HISTORY_TIME has {len(values)} entries, HISTORY has {num_items}; send as many, or none")
    if min(values) < 0 or max(values) > _MAX_TIME:
        raise UsageError(f"HISTORY_TIME is in unix seconds, 0..{_MAX_TIME}; seen {min(values)}..{max(values)}")
    if bool(np.any(np.diff(np.asarray(values, dtype=np.int64)) < 0)):
        raise UsageError("HISTORY_TIME falls; send the oldest item first")
    return tuple(values)


def _context(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"CONTEXT is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise UsageError(f"CONTEXT is a JSON object, this is {type(value).__name__}")
    return value


def _short(context: dict[str, Any], key: str, limit: int) -> str | None:
    value = context.get(key)
    if value is None:
        return None
    # A lone surrogate is legal in JSON's escapes and illegal in UTF-8: it would fail when the row is logged.
    if not isinstance(value, str) or len(value) > limit or any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"CONTEXT.{key} is a string of at most {limit} characters")
    return value or None


def _integer(context: dict[str, Any], key: str, limit: int) -> int | None:
    value = context.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise UsageError(f"CONTEXT.{key} is an integer in 0..{limit}")
    return value
