"""One real inference as the question whether a server answers; its readiness says nothing about its Python stub."""

import socket
import time

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from sidrec import client, contract
from sidrec.client import Recommendation
from sidrec.errors import ServingError

UNHEALTHY = "is not healthy"
_CONTEXT = {"canary": True, "request_id": "canary"}


class DeadStubError(ServingError):
    """The server says that its Python stub is gone, which is conclusive: it never starts another one."""


def ask_canary(url: str, *, timeout_s: float) -> Recommendation:
    """Return the answer to one question that leaves no exposure row, asked once.

    Raises:
        DeadStubError: the server lives and its stub does not.
        ServingError: no answer in time, or one that breaks the contract.
    """
    # A connection of its own: one that was refused before would sit out gRPC's growing pause first.
    connection = triton.InferenceServerClient(url)
    try:
        result = connection.infer(
            contract.MODEL_NAME,
            client.inputs(k=1, context=_CONTEXT | client.deadline(timeout_s)),
            outputs=client.outputs(),
            client_timeout=timeout_s,
        )
    except InferenceServerException as error:
        said = f"{url}: {error.status()}: {error.message()}"
        raise (DeadStubError if UNHEALTHY in str(error.message()) else ServingError)(said) from error
    finally:
        connection.close()
    return client.answer(result)


def wait_for_port(host: str, port: int, *, timeout_s: float) -> bool:
    """Return whether something listens before the time is up; Triton does once its models are loaded."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False
