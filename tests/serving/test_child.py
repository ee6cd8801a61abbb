"""A child's process group ends with it, also when the child was killed by somebody else."""

import os
import signal
import sys
import time
from pathlib import Path

from serving import child

# Starts a grandchild in its own group, says its number, and waits.
PARENT = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(p.pid, flush=True); time.sleep(60)"
)


def test_what_a_dead_child_left_is_ended_too(tmp_path: Path) -> None:
    """A server that was killed leaves its stub behind; ending the server ends the stub."""
    log = tmp_path / "log"
    process = child.spawn([sys.executable, "-c", PARENT], env=dict(os.environ), log=log)
    while not log.exists() or not log.read_text().strip():
        time.sleep(0.05)
    grandchild = int(log.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert Path(f"/proc/{grandchild}").exists()

    child.kill(process)

    for _ in range(50):
        if not Path(f"/proc/{grandchild}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{grandchild}").exists() or "Z" in Path(f"/proc/{grandchild}/stat").read_text().split()[2]
