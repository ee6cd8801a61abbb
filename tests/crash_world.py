"""Dying at a chosen moment: a child process that ends at its n-th write, for every n there is.

A point is any call that changes what lies on disk (open to write, rename, remove, make or remove a folder, link,
truncate, sync) and any statement or commit to a database; the process is gone just before it is done.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

KILLED = 77
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile"}
_WRITING = os.O_WRONLY | os.O_RDWR


class Points:
    """Counts write points under a folder in this process, and ends it at one of them."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.count, self._folder, self._last = 0, str(folder), last
        sys.addaudithook(self._audited)
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self._reach("os.fsync")
            sync(descriptor)

        os.fsync = fsync
        event.listen(Engine, "before_cursor_execute", lambda *_: self._reach("statement"))
        event.listen(Engine, "commit", lambda _: self._reach("commit"))

    def _audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in _CHANGES or (name == "open" and arguments[2] is not None and arguments[2] & _WRITING):
            # What is not a path is a descriptor, or a name beside one: rmtree works like that.
            paths = [os.fsdecode(one) for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
            if any(path.startswith(self._folder) or "/" not in path for path in paths):
                self._reach(name)

    def _reach(self, what: str) -> None:
        self.count += 1
        if self.count == self._last:
            os.write(2, f"ended before point {self.count}: {what}\n".encode())
            os._exit(KILLED)


def run(operation: Callable[[], object], folder: Path, last: int | None) -> tuple[int, int]:
    """Run an operation in a child that ends before its point `last`; return its exit status and its points."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            points = Points(folder, last)
            operation()
            os.write(writer, str(points.count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    _, ended = os.waitpid(child, 0)
    said = os.read(reader, 16)
    os.close(reader)
    return os.waitstatus_to_exitcode(ended), int(said or 0)


def every_point(operation: Callable[[], object], folder: Path, reset: Callable[[], None]) -> Iterator[int]:
    """Yield each point of an operation once a fresh state was left by a process that ended there."""
    reset()
    status, count = run(operation, folder, None)
    assert status == 0, "the operation does not run at all"
    assert count > 5, "nothing is written that could be cut off"
    for point in range(1, count + 1):
        reset()
        status, _ = run(operation, folder, point)
        assert status == KILLED, f"point {point} of {count}: exit status {status}"
        yield point
