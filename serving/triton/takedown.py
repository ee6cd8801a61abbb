"""The takedown list: one item id a line, applied to the next batch after the file changes."""

import logging
from collections.abc import Iterable
from pathlib import Path

from sidrec.files import write_text_atomic

log = logging.getLogger(__name__)


class TakedownFile:
    """Watches one file; a file that is not there lists nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)

    def changed(self) -> frozenset[str] | None:
        """Return the list if it is new since the last call, None if it is the one already returned."""
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            version = None
        if version == self._seen:
            return None
        try:
            ids = read_takedown(self._path)
        except (OSError, UnicodeDecodeError) as error:
            # The list in force stays in force: an unreadable file must not put items back.
            log.error("event=takedown_unreadable path=%s error=%s", self._path, error)
            return None
        self._seen = version
        return ids


def read_takedown(path: Path) -> frozenset[str]:
    """Return the ids in the file; blank lines and lines that start with # are skipped."""
    if not path.exists():
        return frozenset()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def write_takedown(path: Path, item_ids: Iterable[str]) -> None:
    """Write the list whole, so that no reader sees half of it."""
    write_text_atomic(path, "".join(f"{item_id}\n" for item_id in sorted(item_ids)))
