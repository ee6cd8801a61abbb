"""Evidently's own page over the workspace: loopback only, telemetry off, gone with whoever started it.

Run as a module it is the page's process.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidrec import home
from sidrec.errors import ServingError, UsageError
from sidrec.process import die_with_parent

HOST = "127.0.0.1"
_START_S = 60.0
_STOP_S = 10.0


@contextmanager
def serve(workspace: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the process of the page once its API answers; leaving the body stops it.

    Raises:
        UsageError: the port is taken.
        ServingError: it ended, or did not answer within a minute.
    """
    _check_free(port)
    log = home.monitoring_dir() / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    call = [
        sys.executable,
        "-m",
        "evidently.cli",
        "ui",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workspace",
        str(workspace),
    ]
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the page with its children.
        process = subprocess.Popen(
            call,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DO_NOT_TRACK": "true"},
            start_new_session=True,
        )
    try:
        _wait_answering(process, port, log)
        yield process
    finally:
        _stop(process)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(f"port {port} is taken: {error}", next_step="sidrec dashboards --port N") from error


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


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return


def main() -> None:
    """Be the page until the process that asked for it is gone."""
    from evidently.cli import app

    die_with_parent("dashboards")
    sys.argv.insert(1, "ui")
    app()


if __name__ == "__main__":
    main()
