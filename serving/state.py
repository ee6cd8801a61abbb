"""What the running server says about itself, in a file; gone or stale means no server runs."""

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from sidrec import home
from sidrec.files import read_json, write_text_atomic

SCHEMA_VERSION = 1
STATE_FILE = "state.json"
ADMIN_KEY_FILE = "admin.key"
PRIMARY = "primary"
STANDBY = "standby"


class StateFile:
    """The state file of this process: the primary's fields, the gateway's address, and the standby's fields in one.

    Each server's supervisor shows its own part, from a thread of its own.
    """

    def __init__(self) -> None:
        self._servers: dict[str, dict[str, Any]] = {}
        self._gateway: str | None = None
        self._lock = threading.Lock()

    def show(self, name: str, server: dict[str, Any]) -> None:
        """Write what is new about one server."""
        with self._lock:
            self._servers[name] = server
            self._write()

    def announce(self, gateway: str) -> None:
        """Show where the gateway answers."""
        with self._lock:
            self._gateway = gateway
            self._write()

    def gone(self, name: str) -> None:
        """Say that a server was stopped; without the primary no server runs."""
        with self._lock:
            self._servers.pop(name, None)
            if name == PRIMARY:
                clear_state()
            self._write()

    def _write(self) -> None:
        if PRIMARY in self._servers:
            write_state(self._servers[PRIMARY] | {"gateway": self._gateway, STANDBY: self._servers.get(STANDBY)})


def servers_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the servers in a state: the primary, and the standby where there is one."""
    standby = state.get(STANDBY)
    return [state] if standby is None else [state, standby]


def state_path() -> Path:
    """Return the state file's path."""
    return home.serving_dir() / STATE_FILE


def write_state(value: dict[str, Any]) -> None:
    """Write the state of the server that this process runs."""
    pid = os.getpid()
    own = {"schema_version": SCHEMA_VERSION, "pid": pid, "pid_started": process_started(pid)}
    write_text_atomic(state_path(), json.dumps(value | own, indent=2, sort_keys=True) + "\n")


def read_state() -> dict[str, Any] | None:
    """Return the running server's state, None when no server runs (a killed one's file does not count)."""
    path = state_path()
    if not path.exists():
        return None
    value: dict[str, Any] = read_json(path)
    if value.get("schema_version") != SCHEMA_VERSION or process_started(value["pid"]) != value["pid_started"]:
        return None
    return value


def clear_state() -> None:
    """Say that no server runs."""
    state_path().unlink(missing_ok=True)
    (home.serving_dir() / ADMIN_KEY_FILE).unlink(missing_ok=True)


def write_admin_key(key: str) -> None:
    """Store the key of the server's model control for `deploy`, readable by this account alone.

    Servers that start at the same time share a key, and either may be the last to write it.
    """
    path = home.serving_dir() / ADMIN_KEY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of mode 0600 from the start.
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    Path(partial).replace(path)


def read_admin_key() -> str:
    """Return the running server's admin key."""
    return (home.serving_dir() / ADMIN_KEY_FILE).read_text().strip()


def process_started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
