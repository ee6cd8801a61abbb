"""One Triton container of a cluster: verified before it starts, kept answering, and following the ledger by itself.

What the ledger asks for is exported, its digests and its signed verdict are checked, and only then a server starts. A
promotion is loaded beside what serves, in this pod as in every other. `python -m serving.container`; the state folder
`serving/` and the model repository are this pod's own, registry and ledger are shared.
"""

import argparse
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving import deploy
from serving.supervisor import Supervisor, until_signalled
from serving.triton import repository
from sidrec import home
from sidrec.decoding.native import compile_ahead
from sidrec.errors import SidrecError
from sidrec.process import exclusive
from sidrec.release.ledger import Ledger

log = logging.getLogger(__name__)

_FOLLOW_S = 5.0
_MAX_PAUSE_S = 600.0


class Follower:
    """Brings the running server to the ledger's revision; one that is refused is tried again after a growing pause.

    Args:
        deploy: makes the server match the ledger; raises a SidrecError where it stays as it was.
        clock: seconds, rising.
    """

    def __init__(self, deploy: Callable[[], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._deploy = deploy
        self._clock = clock
        self._refused: int | None = None
        self._pause_s = 0.0
        self._not_before = float("-inf")

    def look(self) -> str | None:
        """Look once; return what was said of a deployment, None where there was nothing to do or it is too early."""
        try:
            desired = Ledger().desired()
            served = repository.pointed_to(home.triton_repository_dir())
        except SidrecError as error:
            return self._failed(error, None)
        early = self._clock() < self._not_before
        if desired is None or desired.revision == served or (early and desired.revision == self._refused):
            return None
        try:
            said = str(self._deploy())
        except SidrecError as error:
            return self._failed(error, desired.revision)
        self._refused, self._pause_s = None, 0.0
        log.warning("event=deployed what=%r", said)
        return said

    def _failed(self, error: SidrecError, revision: int | None) -> str:
        again = revision == self._refused
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S) if again and self._pause_s else _FOLLOW_S
        self._refused, self._not_before = revision, self._clock() + self._pause_s
        log.error("event=not_deployed revision=%s again_in_s=%.0f reason=%r", revision, self._pause_s, error.message)
        return error.message


@contextmanager
def following(follower: Follower, stopping: threading.Event) -> Iterator[None]:
    """Look at the ledger every few seconds, in a thread of its own, for the body."""

    def follow() -> None:
        while not stopping.wait(_FOLLOW_S):
            try:
                follower.look()
            except Exception:
                # The boundary of this thread: whatever a shared volume throws, the server goes on and so does this.
                log.exception("event=not_followed")

    thread = threading.Thread(target=follow, name="follower")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def serve(*, host: str, grpc_port: int, metrics_port: int, instances: int | None) -> None:
    """Serve what the ledger asks for until SIGTERM.

    Raises:
        ServingError: nothing was promoted, or no answer came.
        LedgerUnreachableError: the ledger's database does not answer, and this pod has served nothing yet.
        BundleError: a file of the bundle is not what its manifest says.
        VerdictError: no valid verdict lets this bundle serve.
    """
    stopping = until_signalled()
    who = f"pod {socket.gethostname()}"
    with exclusive(home.serving_dir() / "server.lock", "the server of this SIDREC_HOME"):
        revision = deploy.prepare_start(Ledger())
        repository.point_to(home.triton_repository_dir(), revision.revision, instances=instances)
        # An image is built for no processor in particular: what the search compiles is compiled on this node.
        compile_ahead()
        supervisor = Supervisor(grpc_port=grpc_port, metrics_port=metrics_port, host=host, metrics_host=host)
        try:
            supervisor.start(stopping)
            deploy.confirm_live(revision, urls=[supervisor.server.url], who=who)
            repository.prune(home.triton_repository_dir())
            log.warning("event=serving revision=%d at=%s", revision.revision, supervisor.server.url)
            with following(Follower(lambda: deploy.deploy(who=who).sentence), stopping):
                supervisor.watch(stopping)
        finally:
            supervisor.stop()


def main(arguments: list[str] | None = None) -> int:
    """Serve; return 0 once told to stop, else the error's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="Address of both doors; loopback unless told otherwise.")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    call = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    wanted = os.environ.get("SIDREC_INSTANCES", "")
    try:
        serve(
            host=call.host,
            grpc_port=call.grpc_port,
            metrics_port=call.metrics_port,
            instances=int(wanted) if wanted else None,
        )
    except SidrecError as error:
        log.error("event=refused error=%s reason=%r next=%r", type(error).__name__, error.message, error.next_step)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
