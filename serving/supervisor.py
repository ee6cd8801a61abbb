"""Keeps one Triton server answering: real inference as the probe, a restart as the cure.

The server's own readiness says nothing about its Python stub, which is never restarted once dead. So a canary
request is asked twice a second. A dead stub or a gone process is acted on at once, silence only when the server makes
no progress either.
"""

import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serving.state import PRIMARY, StateFile, read_state, write_admin_key
from serving.triton.canary import DeadStubError, ask_canary, wait_for_port
from serving.triton.repository import pointed_to
from serving.triton.server import TritonServer, check_port, free_port, inference_count, triton_home
from sidrec import home
from sidrec.client import Recommendation
from sidrec.errors import ServingError, SidrecError
from sidrec.process import exclusive

__all__ = ["Supervisor", "read_state", "triton_home"]

log = logging.getLogger(__name__)

_CANARY_EVERY_S = 0.5
_CANARY_TIMEOUT_S = 3.0
_SILENT_CANARIES = 3
_FIRST_ANSWER_S = 120.0
_MAX_BACKOFF_S = 30.0


@dataclass(slots=True)
class Supervisor:
    """One server of this SIDREC_HOME's model repository, and its part of the state file.

    Every method is called from one thread, which lives as long as the server does.

    Args:
        metrics_host: address of the metrics page; loopback unless a Prometheus elsewhere reads it.
        name: of the server among those of this SIDREC_HOME.
        admin_key: what unlocks its model control; servers that `deploy` is to reach share one.
    """

    grpc_port: int = 8001
    metrics_port: int = 0
    host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
    name: str = PRIMARY
    state_file: StateFile = field(default_factory=StateFile)
    admin_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    server: TritonServer = field(init=False)
    restarts: int = field(default=0, init=False)
    _silent: int = field(default=0, init=False)
    _count: int = field(default=-1, init=False)
    _shown: tuple[object, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.grpc_port:
            check_port(self.host, self.grpc_port, "--grpc-port")
        self.server = TritonServer(
            repository=home.triton_repository_dir(),
            state=home.home(),
            log=home.serving_dir() / ("triton.log" if self.name == PRIMARY else f"triton-{self.name}.log"),
            grpc_port=self.grpc_port or free_port(),
            metrics_port=self.metrics_port or free_port(),
            host=self.host,
            metrics_host=self.metrics_host,
            name=self.name,
            admin_key=self.admin_key,
        )

    def start(self, stopping: threading.Event | None = None) -> Recommendation:
        """Start the server and return its first real answer.

        Args:
            stopping: ends the wait for the answer.

        Raises:
            ServingError: nothing was deployed, or no answer came within two minutes; the server is stopped again.
        """
        if pointed_to(self.server.repository) is None:
            raise ServingError(
                f"no revision in {self.server.repository}: nothing was promoted here",
                next_step="sidrec run, then sidrec promote --first --reason '…'",
            )
        write_admin_key(self.server.admin_key)
        self._show("starting", None)
        self.server.start()
        answer = self._first_answer(stopping)
        self._show("ready", answer)
        return answer

    def watch(self, stopping: threading.Event, check_also: Callable[[], None] = lambda: None) -> None:
        """Keep the server answering until `stopping` is set.

        Args:
            check_also: called at every beat, for what else the same process keeps alive.
        """
        while not stopping.wait(_CANARY_EVERY_S):
            if (reason := self.check()) is not None and not stopping.is_set():
                self.heal(reason, stopping)
            check_also()

    def check(self) -> str | None:
        """Ask the canary; return why the server must be restarted, None if it need not."""
        if not self.server.running():
            return "the server's process is gone"
        if self.server.lost_a_stub():
            return "its Python stub is dead"
        try:
            answer = ask_canary(self.server.url, timeout_s=_CANARY_TIMEOUT_S)
        except DeadStubError as error:
            # One that died of its last request is not missed where the next revision's stub lives by now.
            return "its Python stub is dead" if self.server.lost_a_stub() else self._silence(error)
        except SidrecError as error:
            return self._silence(error)
        self._silent = 0
        self._show("ready", answer)
        return None

    def heal(self, reason: str, stopping: threading.Event) -> None:
        """Kill the server, clear its shared memory, start it again and wait for its first answer.

        A start that fails is tried again after a growing pause, until `stopping` is set.
        """
        pause = 1.0
        while not stopping.is_set():
            self.restarts += 1
            began = time.monotonic()
            log.warning("event=restart number=%d reason=%r", self.restarts, reason)
            self._show("healing", None)
            self.server.kill()
            self.server.start()
            try:
                answer = self._first_answer(stopping)
            except ServingError as error:
                reason = error.message
                stopping.wait(pause)
                pause = min(2 * pause, _MAX_BACKOFF_S)
                continue
            self._silent = 0
            log.warning("event=healed number=%d seconds=%.1f", self.restarts, time.monotonic() - began)
            self._show("ready", answer)
            return

    def stop(self) -> None:
        """End the server after the requests in flight are answered, and say that none runs."""
        self.server.stop()
        self.state_file.gone(self.name)

    def _first_answer(self, stopping: threading.Event | None = None) -> Recommendation:
        deadline = time.monotonic() + _FIRST_ANSWER_S
        seen = "nothing"
        while time.monotonic() < deadline and not (stopping is not None and stopping.is_set()):
            if not self.server.running():
                seen = "its process ended"
                break
            # The port opens once the model is loaded: no question is worth asking before.
            if not wait_for_port(self.server.host, self.server.grpc_port, timeout_s=0.5):
                continue
            try:
                return ask_canary(self.server.url, timeout_s=_CANARY_TIMEOUT_S)
            except DeadStubError as error:
                seen = error.message
                break
            except SidrecError as error:
                seen = error.message
                time.sleep(0.05)
        tail = self.server.log_tail(3)
        self.server.kill()
        raise ServingError(
            f"the server gave no answer: {seen}" + (f"\n{tail}" if tail else ""),
            evidence=self.server.log,
            next_step="sidrec doctor; sidrec rollback goes back to the revision before",
        )

    def _silence(self, error: SidrecError) -> str | None:
        """Count a canary without an answer; a busy server that answers others is left alone."""
        try:
            count = inference_count(self.server.url)
        except ServingError:
            count = self._count
        progressed = count != self._count
        self._count = count
        self._silent = 0 if progressed else self._silent + 1
        return f"no answer: {error.message}" if self._silent >= _SILENT_CANARIES else None

    def _show(self, state: str, answer: Recommendation | None) -> None:
        """Write the state file where something in it changed."""
        revision = pointed_to(self.server.repository) if answer is None else int(answer.model_version)
        bundle = None if answer is None else answer.bundle_id
        shown = (state, revision, bundle, self.restarts)
        if shown == self._shown:
            return
        self._shown = shown
        self.state_file.show(
            self.name,
            {
                "health": state,
                "grpc": self.server.url,
                "metrics": f"http://127.0.0.1:{self.server.metrics_port}/metrics",
                "revision": revision,
                "bundle_id": bundle,
                "restarts": self.restarts,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "log": str(self.server.log),
                "triton_pid": None if self.server.process is None else self.server.process.pid,
            },
        )


def until_signalled() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stopping = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stopping


def main(grpc_port: int) -> None:
    """Run a server until told to stop; what the gateway starts when it is given no server."""
    stopping = until_signalled()
    with exclusive(home.serving_dir() / "server.lock", "the server of this SIDREC_HOME"):
        supervisor = Supervisor(grpc_port=grpc_port)
        try:
            supervisor.start()
            supervisor.watch(stopping)
        finally:
            supervisor.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        main(int(sys.argv[1]))
    except SidrecError as error:
        log.error("event=stopped error=%r next=%r", error.message, error.next_step)
        sys.exit(error.exit_code)
