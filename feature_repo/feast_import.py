"""Imports Feast in 1.5 seconds instead of 7: without the run-time type checks that it compiles into itself.

Feast decorates nineteen modules with typeguard, which parses and recompiles every method while they are imported.
A server that restarts waits for that with all its users, so the decorator does nothing meanwhile. What Feast's objects
are made from is checked where it is written: mypy reads `features.py`, and the tests apply it.
"""

import sys
import threading
from typing import Any

import typeguard

_lock = threading.Lock()


def import_feast() -> None:
    """Import Feast; where it is imported already, nothing happens."""
    with _lock:
        if "feast" in sys.modules:
            return
        checked = typeguard.typechecked
        typeguard.typechecked = _unchecked
        try:
            import feast  # noqa: F401 - for what it leaves in sys.modules
        finally:
            typeguard.typechecked = checked


def _unchecked(target: Any = None, **options: Any) -> Any:
    return target if target is not None else lambda decorated: decorated
