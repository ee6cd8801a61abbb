"""The gateway as a child process of `sidrec serve`: started, watched, restarted, ended."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from serving import child
from sidrec.errors import ServingError

_ROOT = Path(__file__).parents[2]
_FIRST_ANSWER_S = 60.0
_STOP_S = 10.0


@dataclass(slots=True)
class GatewayProcess:
    """A BentoML server of the gateway in front of one Triton."""

    port: int
    triton_url: str
    log: Path
    host: str = "127.0.0.1"
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start it; like Triton it dies with the thread that started it."""
        command = [sys.executable, "-m", "bentoml", "serve", "serving.gateway.service:Gateway"]
        command += ["--host", self.host, "--port", str(self.port), "--working-dir", str(_ROOT)]
        env = {
            **os.environ,
            "SIDREC_TRITON_URL": self.triton_url,
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "true",
        }
        self.process = child.spawn(command, env=env, log=self.log, cwd=_ROOT, on_parent_death=signal.SIGTERM)

    def wait_answer(self) -> None:
        """Return once a real inference came back through it.

        Raises:
            ServingError: none did within a minute.
        """
        deadline = time.monotonic() + _FIRST_ANSWER_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):  # noqa: S310 - our own http url
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if time.monotonic() > deadline or not self.running():
                    raise ServingError(f"the gateway gave no answer: {error}", evidence=self.log) from error
                time.sleep(0.1)

    def running(self) -> bool:
        """Return whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def keep(self) -> None:
        """Start it again if it is gone."""
        if not self.running():
            self.restarts += 1
            self.start()

    def stop(self) -> None:
        """End it after the requests in flight are answered."""
        if self.process is not None:
            child.stop(self.process, grace_s=_STOP_S)
