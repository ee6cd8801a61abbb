"""Child processes that the kernel ends when the thread that started them ends, however it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    on_parent_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Return the started process, in a process group of its own, its output appended to `log`.

    Call it from a thread that lives as long as the child should: the kernel watches the thread, not the process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # A launcher in between instead of preexec_fn, which is unsafe in a process with gRPC's threads.
    launcher = [sys.executable, "-S", "-E", __file__, str(os.getpid()), str(int(on_parent_death))]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launcher, *command],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def stop(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """End a child: SIGTERM, and SIGKILL to its group if it is still there after `grace_s` seconds."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a child and its process group at once; of a child that is dead already, what it left in the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _exec(parent: int, number: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execve(command[0], command, os.environ)  # noqa: S606 - a fixed argument list, no shell wanted


if __name__ == "__main__":
    _exec(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
