"""Every answer that is no recommendation: one JSON object, and nothing in it that only we should know."""

import json
import random
from typing import Any

from starlette.responses import JSONResponse

from serving.gateway.messages import ErrorResponse
from sidrec.client import DeadlineError, OverloadError
from sidrec.errors import BusyError, ServingError, SidrecError, UsageError

# Callers that were refused together should not come back together.
_RETRY_AFTER_S = (1, 3)
_MAX_FAULTS = 5
_MAX_FAULT_CHARS = 200

PUBLIC: dict[str, tuple[int, str, bool]] = {
    "invalid": (400, "the request is not what /docs.json describes", False),
    "unauthorized": (401, "a bearer token is needed", False),
    "not_found": (404, "there is nothing at this address; /docs.json lists what there is", False),
    "method_not_allowed": (405, "this address takes another method; /docs.json says which one", False),
    "too_large": (413, "the body is too large", False),
    "unsupported": (415, "the body is JSON: content-type application/json", False),
    "failed": (500, "the server failed on this request; its log says why", False),
    "overloaded": (503, "too many requests are waiting; try again", True),
    "busy": (503, "another writer holds the store; send the same events again", True),
    "unavailable": (503, "no server answers right now; try again", True),
    "deadline": (504, "no answer within the deadline", True),
}
_BY_STATUS = {400: "invalid", 404: "not_found", 405: "method_not_allowed", 415: "unsupported", 503: "unavailable"}


def refusal(name: str, message: str = "") -> JSONResponse:
    """Return the answer of a name in PUBLIC, with its own message where none is given."""
    status, public, retry = PUBLIC[name]
    headers = {"Retry-After": str(random.randint(*_RETRY_AFTER_S))} if retry else {}  # noqa: S311 - spreads load
    body = ErrorResponse(error=name, message=message or public, retry=retry).model_dump()
    return JSONResponse(body, status_code=status, headers=headers)


def name_of(error: SidrecError) -> str:
    """Return the name under which callers learn of an error."""
    match error:
        case UsageError():
            return "invalid"
        case OverloadError():
            return "overloaded"
        case DeadlineError():
            return "deadline"
        case BusyError():
            return "busy"
        case ServingError():
            return "unavailable"
    return "failed"


def in_our_words(status: int, body: bytes) -> JSONResponse | None:
    """Return what to say in place of the framework's error, None where the body is ours already."""
    said = _parsed(body)
    if isinstance(said, dict) and set(said) == set(ErrorResponse.model_fields):
        return None
    name = _BY_STATUS.get(status, "invalid" if status < 500 else "failed")
    return refusal(name, _faults(said) if name == "invalid" else "")


def _faults(said: Any) -> str:
    """Return the faults of a body that pydantic lists, by field."""
    listed = said.get("detail") if isinstance(said, dict) else None
    faults = []
    for fault in listed if isinstance(listed, list) else []:
        # Where the body as a whole is wrong there is no field, and pydantic would name our class.
        where = ".".join(str(part) for part in fault["loc"])
        text = "a JSON object is expected" if fault["type"] in ("model_type", "dict_type") else str(fault["msg"])
        faults.append((f"{where}: {text}" if where else text)[:_MAX_FAULT_CHARS])
    more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    return "; ".join(faults[:_MAX_FAULTS]) + more


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
