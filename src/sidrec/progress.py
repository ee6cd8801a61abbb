"""Progress of long steps: a bar on a terminal, one line a minute otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_LINE_EVERY_S = 60.0


def track(items: Iterable[Item], label: str, *, total: int, start: int = 0) -> Iterator[Item]:
    """Yield `items` unchanged and show how far along they are, on stderr.

    Args:
        total: number of items of the whole job, those done before a resume included.
        start: items already done when this process began.
    """
    if sys.stderr.isatty():
        yield from _bar(items, label, total, start)
        return
    last_line = time.monotonic()
    for done, item in enumerate(items, start=start + 1):
        yield item
        if time.monotonic() - last_line >= _LINE_EVERY_S or done == total:
            last_line = time.monotonic()
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)


def _bar(items: Iterable[Item], label: str, total: int, start: int) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=start)
        for item in items:
            yield item
            progress.advance(task)
