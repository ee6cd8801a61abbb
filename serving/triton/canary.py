"""One real inference as the question whether a server answers; its readiness says nothing about its Python stub.

`python -m serving.triton.canary HOST:PORT` asks it once and says so by its exit status: what a container's probe runs.
"""

import argparse
import socket
import sys
import time

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from sidrec import client, contract
from sidrec.client import Recommendation
from sidrec.client.tls import connection_args
from sidrec.errors import ServingError, SidrecError

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
    connection = triton.InferenceServerClient(url, **connection_args())
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


def main(arguments: list[str] | None = None) -> int:
    """Return 0 after an answer, 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(description="Ask a Triton server for one recommendation.")
    parser.add_argument("url", help="host:port")
    parser.add_argument("--timeout-s", type=float, default=3.0)
    call = parser.parse_args(arguments)
    try:
        answer = ask_canary(call.url, timeout_s=call.timeout_s)
    except SidrecError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(f"{answer.bundle_id} answered from {answer.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
