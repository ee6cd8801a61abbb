"""How many requests may wait at once; one more is refused now rather than late.

Triton's own queue limit stalls the server for about half a second, so load is shed here.
"""

import contextlib
from collections.abc import Iterator

from sidrec.client import OverloadError


class Admission:
    """Counts the requests in flight of one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Let a request in for as long as the block runs.

        Raises:
            OverloadError: as many as are allowed wait already.
        """
        if self.waiting >= self.most:
            raise OverloadError(f"{self.waiting} requests are waiting already", next_step="try again later")
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
