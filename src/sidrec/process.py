"""Processes that do not outlive the one that started them, and locks that do not outlive their holder."""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidrec.errors import BusyError


def die_with_parent(label: str) -> None:
    """End this process within a second of its parent's death, however the parent died."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        print(f"{label}: the process that started it is gone; stopping", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


@contextmanager
def exclusive(path: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` for the body; the kernel frees it when the holder dies.

    Args:
        wait_s: how long to wait for another holder to let go.

    Raises:
        BusyError: another process still holds it after `wait_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise BusyError(
                    f"{what} is held by process {holder}", evidence=path, next_step="sidrec status"
                ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
