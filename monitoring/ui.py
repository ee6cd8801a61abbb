"""Evidently's own page over the workspace: loopback only, telemetry off, gone with whoever started it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import child
from sidrec import home
from sidrec.errors import ServingError, UsageError

HOST = "127.0.0.1"
_START_S = 90.0
_STOP_S = 5.0


@contextmanager
def serve(workspace: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the process of the page once its API answers; leaving the body stops it.

    Raises:
        UsageError: the port is taken.
        ServingError: it ended, or did not answer in time; its log is the evidence.
    """
    _check_free(port)
    log = home.monitoring_dir() / "ui.log"
    command = [sys.executable, "-m", "evidently.cli", "ui", "--host", HOST, "--port", str(port)]
    process = child.spawn(
        [*command, "--workspace", str(workspace)], env={**os.environ, "DO_NOT_TRACK": "true"}, log=log
    )
    try:
        _wait_answering(process, port, log)
        yield process
    finally:
        child.stop(process, grace_s=_STOP_S)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        # What a page that just ended leaves behind on a port does not make it taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} is taken: {error.strerror}", next_step="sidrec dashboards --port N"
            ) from error


def _wait_answering(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(f"evidently ui ended with exit status {process.returncode}", evidence=log)
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/projects", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise ServingError(f"evidently ui did not answer on port {port} within {_START_S:.0f} s", evidence=log)
