"""Replies on disk, a JSON line each: what was paid for is not asked for again, also after a kill in the middle."""

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sidrec.errors import CheckFailedError


class ReplyCache:
    """The replies in one file, and a place at its end; a context that closes it. One process writes."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut off by a kill is dropped.

        Raises:
            CheckFailedError: a line before the last is no reply.
        """
        self.path = path
        self._replies: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> str | None:
        """Return a request's reply, None where it has none yet."""
        return self._replies.get(key)

    def put(self, key: str, reply: str, **about: Any) -> None:
        """Keep a reply, on disk when this returns."""
        line = json.dumps({"key": key, "reply": reply, **about}, sort_keys=True, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self._replies[key] = reply

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        lines = self._file.read().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut off")
                row = json.loads(line)
                self._replies[row["key"]] = row["reply"]
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    self._file.close()
                    raise CheckFailedError(
                        f"line {number} of the replies is none: {error}",
                        evidence=self.path,
                        next_step="remove the line; its text is asked for again",
                    ) from error
                break
            whole += len(line)
        self._file.truncate(whole)
