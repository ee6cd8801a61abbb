"""One error for each thing a caller can do about it, whatever status the server gave.

UsageError           INVALID_ARGUMENT                       mend the request
ServingError         anything else                          the server's log says why
├── DeadlineError    DEADLINE_EXCEEDED                      another server, or more time
├── UnavailableError UNAVAILABLE, NOT_FOUND, CANCELLED,     another server, or the same one a moment later
│                    a dead stub
├── OverloadError    RESOURCE_EXHAUSTED, a full queue       another server, or later; at once makes it worse
├── AccessError      UNAUTHENTICATED, PERMISSION_DENIED     credentials
└── ContractError    an answer that breaks the contract     versions of client and server
"""

from tritonclient.utils import InferenceServerException

from sidrec.errors import ServingError, UsageError

# What Triton says while its Python stub is gone; it never starts another one.
_DEAD_STUB = "is not healthy"
# CANCELLED is the server's: a draining one takes calls in that it never begins. A caller who cancels sees no status.
_AWAY = ("UNAVAILABLE", "NOT_FOUND", "CANCELLED")
_FULL_QUEUE = ("maximum queue size", "Request timeout expired")


class DeadlineError(ServingError):
    """The caller's deadline passed without an answer."""


class UnavailableError(ServingError):
    """The server is gone, draining, starting, or lost its stub."""


class OverloadError(ServingError):
    """Too many requests are waiting already."""


class AccessError(ServingError):
    """The server does not let this caller in."""


class ContractError(ServingError):
    """The server's answer breaks the contract."""


def status_of(error: InferenceServerException) -> str:
    """Return the bare name of the gRPC status, UNKNOWN where there is none."""
    return str(error.status() or "UNKNOWN").removeprefix("StatusCode.")


def refusal(error: InferenceServerException, url: str, *, pinned: bool = False) -> UsageError | ServingError:
    """Return the server's refusal as one of our errors.

    Args:
        pinned: a version was asked for by number. Then NOT_FOUND says that there is no such version; otherwise the
            model is away because the server drains or starts.
    """
    status, text = status_of(error), str(error.message() or "")
    said = f"no answer from {url}: {status}: {text}"
    match status:
        case "INVALID_ARGUMENT":
            return UsageError(f"the server refused the request: {text}", next_step="see docs/contract.md")
        case "DEADLINE_EXCEEDED":
            return DeadlineError(f"no answer from {url} within the deadline", next_step="allow more time, or ask again")
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return AccessError(said, next_step="check what this caller sends to be let in")
        case "RESOURCE_EXHAUSTED":
            return OverloadError(said, next_step="ask again later, or start another server")
        case "UNAVAILABLE" if any(word in text for word in _FULL_QUEUE):
            return OverloadError(said, next_step="ask again later, or start another server")
        case "NOT_FOUND" if pinned:
            return ServingError(said, next_step="leave the model version out, or ask sidrec status which one is live")
    step = "sidrec status shows whether a server runs; sidrec serve starts one"
    if status in _AWAY or (status == "INTERNAL" and _DEAD_STUB in text):
        return UnavailableError(said, next_step=step)
    return ServingError(said, next_step=step)
