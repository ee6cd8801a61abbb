"""Which bearer tokens open the HTTP door: one from the environment, or those of a file that is read as it changes.

A file holds one token a line, so that a new one is let in before the old one is taken out: no restart, no caller
refused. A file that is gone or empty lets nobody in.
"""

import hmac
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "SIDREC_GATEWAY_TOKEN"  # noqa: S105 - the name of the variable
FILE_VARIABLE = "SIDREC_GATEWAY_TOKENS"
_LOOK_EVERY_S = 5.0


class Tokens:
    """The tokens that are good now.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        named = os.environ.get(FILE_VARIABLE)
        self._path = Path(named) if named else None
        single = os.environ.get(TOKEN_VARIABLE, "").encode()
        self._good: tuple[bytes, ...] = (single,) if single else ()
        self._clock = clock
        self._looked = float("-inf")

    @property
    def open(self) -> bool:
        """Whether the door asks for no token at all: neither a token nor a file is configured."""
        return self._path is None and not self._good

    def allow(self, authorization: bytes) -> bool:
        """Return whether an `authorization` header bears a good token."""
        # All are compared, each in constant time: how long it takes tells nothing about any of them.
        return self.open or any([hmac.compare_digest(authorization, b"Bearer " + token) for token in self._current()])

    def _current(self) -> tuple[bytes, ...]:
        if self._path is not None and self._clock() - self._looked >= _LOOK_EVERY_S:
            self._looked = self._clock()
            try:
                lines = self._path.read_bytes().splitlines()
            except OSError as error:
                log.error("event=no_tokens reason=%r", str(error))
                lines = []
            self._good = tuple(line.strip() for line in lines if line.strip())
        return self._good
