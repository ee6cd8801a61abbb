"""The ledger: who asked for which revision, when, why and on which verdict; rows are only ever appended.

Each row holds the hash of the one before, so a changed, deleted, inserted or reordered row breaks the chain there.
A chain cannot notice that its end was cut off: `ledger.head` beside it remembers the last row. Times are the wall's.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidrec import files, home
from sidrec.errors import BusyError, LedgerError
from sidrec.release.revision import Revision

SCHEMA_VERSION: Final = 1
GENESIS = "0" * 64
Action = Literal["promote", "ramp", "stop", "rollback", "live"]
_LOCK_WAIT_S = 30.0


class LedgerRow(BaseModel):
    """One decision, or the fact that a server now follows one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    seq: int = Field(ge=1)
    time: datetime
    action: Action
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)
    bundle: str = Field(description="bundle_id of the first arm.")
    verdicts: dict[str, str] = Field(description="bundle_id -> SHA-256 of the verdict file that allowed it.")
    second_approver: str | None = Field(None, description="Who else stands behind an inconclusive verdict.")
    restores: int | None = Field(None, description="rollback: the revision whose contents came back.")
    revision: Revision
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def line(self) -> str:
        """The row's one spelling in the file."""
        return _canonical(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Check:
    """What `verify` found: every row in order, and bytes that a cut-off append left behind, if any."""

    rows: list[LedgerRow]
    head: str
    torn: str | None


class Ledger:
    """The rows of one ledger file, read under a shared lock and appended under an exclusive one."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home.ledger_path()
        self.head_path = self.path.with_suffix(".head")

    def verify(self) -> Check:
        """Return every row after the whole chain was checked.

        Raises:
            LedgerError: the first broken row is named, or the chain ends before the row that `ledger.head` remembers.
        """
        with self._locked(fcntl.LOCK_SH):
            return self._read()

    def rows(self) -> list[LedgerRow]:
        """Return every row, oldest first, after the whole chain was checked."""
        return self.verify().rows

    def desired(self) -> Revision | None:
        """Return the revision that servers ought to serve: the last one promoted or rolled back to."""
        decisions = [row for row in self.rows() if row.action != "live"]
        return decisions[-1].revision if decisions else None

    def live(self, at: datetime | None = None) -> LedgerRow | None:
        """Return the row of the revision that was being served at a time (default: now), None before the first."""
        rows = [row for row in self.rows() if row.action == "live" and (at is None or row.time <= at)]
        return rows[-1] if rows else None

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Hold the exclusive lock: what is read inside stays true until what is appended inside is on disk.

        A tail that a killed append left is moved to a file of its own first, and said so.

        Raises:
            LedgerError: the chain is broken; nothing is appended to a broken one.
            BusyError: another process held the lock for 30 s.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            check = self._read()
            if check.torn is not None:
                self._set_aside(check)
            yield Writer(self, check.rows)

    def record_live(self, revision: Revision, *, who: str, why: str) -> LedgerRow:
        """Append that a server now serves this revision; a no-op when the last live row says so already.

        Raises:
            LedgerError: nobody asked for this revision, or not with these contents.
        """
        with self.writing() as writer:
            asked = [row for row in writer.rows if row.action != "live" and row.revision == revision]
            if not asked:
                raise LedgerError(
                    f"revision {revision.revision} with these contents was never promoted; it may not be live",
                    evidence=self.path,
                    next_step="sidrec ledger show",
                )
            live = [row for row in writer.rows if row.action == "live"]
            if live and live[-1].revision == revision:
                return live[-1]
            return writer.append("live", who=who, why=why, revision=revision, verdicts=asked[-1].verdicts)

    def _read(self) -> Check:
        data = self.path.read_bytes() if self.path.exists() else b""
        end = data.rfind(b"\n") + 1
        rows: list[LedgerRow] = []
        for number, line in enumerate(data[:end].split(b"\n")[:-1], start=1):
            rows.append(self._row(number, line, rows[-1].hash if rows else GENESIS))
        self._check_head(rows)
        torn = data[end:].decode("utf-8", errors="backslashreplace") if data[end:] else None
        return Check(rows=rows, head=rows[-1].hash if rows else GENESIS, torn=torn)

    def _row(self, number: int, line: bytes, previous: str) -> LedgerRow:
        def broken(why: str) -> LedgerError:
            return LedgerError(
                f"row {number} of the ledger is broken: {why}",
                evidence=self.path,
                next_step="restore the file from a copy; nothing is appended to a broken ledger",
            )

        try:
            text = line.decode("utf-8")
            row = LedgerRow.model_validate_json(text)
        except (UnicodeDecodeError, ValidationError) as error:
            raise broken(f"it does not parse ({str(error).splitlines()[0]})") from error
        if row.seq != number:
            raise broken(f"its number is {row.seq}; a row was deleted, inserted or moved")
        if row.previous != previous:
            raise broken(f"it follows {row.previous[:12]}…, the row before it is {previous[:12]}…")
        if row.hash != _hash(json.loads(text)) or row.line != text:
            raise broken("its hash does not hold; it was altered")
        return row

    def _check_head(self, rows: list[LedgerRow]) -> None:
        """Refuse a chain that ends before, or beside, the row that the head remembers.

        One row more than the head knows is an append that was killed between its two writes: the row stands.
        """
        head: dict[str, Any] = {"seq": 0, "hash": GENESIS}
        if self.head_path.exists():
            try:
                head = files.read_json(self.head_path)
                seq, digest = int(head["seq"]), str(head["hash"])
            except (ValueError, KeyError, TypeError) as error:
                raise LedgerError(f"{self.head_path.name} does not parse", evidence=self.head_path) from error
        else:
            seq, digest = 0, GENESIS
        if seq > len(rows) or len(rows) > seq + 1:
            raise LedgerError(
                f"the ledger has {len(rows)} rows, its head remembers row {seq}: rows were cut off or the head is old",
                evidence=self.head_path,
                next_step="restore ledger and head from a copy",
            )
        if digest != (rows[seq - 1].hash if seq else GENESIS):
            raise LedgerError(
                f"row {seq} of the ledger is broken: the head remembers {digest[:12]}…, the row has"
                f" {rows[seq - 1].hash[:12] if seq else GENESIS[:12]}…; history was rewritten",
                evidence=self.head_path,
                next_step="restore ledger and head from a copy",
            )

    def _set_aside(self, check: Check) -> None:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        aside = self.path.with_name(f"{self.path.stem}.torn-after-{len(check.rows)}-{time.time_ns()}")
        with aside.open("wb") as file:
            file.write(data[end:])
            file.flush()
            os.fsync(file.fileno())
        with self.path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
        print(
            f"ledger: an append was cut off after row {len(check.rows)}; its {len(data) - end} bytes are set aside in"
            f" {aside}",
            file=sys.stderr,
        )

    def _append(self, row: LedgerRow) -> None:
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            data = (row.line + "\n").encode()
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            _fsync_folder(self.path.parent)
        files.write_json_atomic(self.head_path, {"seq": row.seq, "hash": row.hash})
        _fsync_folder(self.path.parent)

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        lock = self.path.with_suffix(".lock")
        if mode == fcntl.LOCK_SH and not lock.exists():
            # Nobody has ever appended here, or this is a copy that nobody appends to.
            yield
            return
        with lock.open("a" if mode == fcntl.LOCK_EX else "r") as file:
            deadline = time.monotonic() + _LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(file, mode | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise BusyError(f"the ledger was locked for {_LOCK_WAIT_S:.0f} s", evidence=lock) from error
                    time.sleep(0.01)
            yield


@dataclass(slots=True)
class Writer:
    """The one process that may append, and the rows it saw when it got the lock."""

    ledger: Ledger
    rows: list[LedgerRow]

    def append(
        self,
        action: Action,
        *,
        who: str,
        why: str,
        revision: Revision,
        verdicts: dict[str, str],
        second_approver: str | None = None,
        restores: int | None = None,
    ) -> LedgerRow:
        """Return the row after it is on disk."""
        body = {
            "schema_version": SCHEMA_VERSION,
            "seq": len(self.rows) + 1,
            "time": datetime.now(UTC),
            "action": action,
            "who": who,
            "why": why,
            "bundle": revision.arms[0].bundle.bundle_id,
            "verdicts": verdicts,
            "second_approver": second_approver,
            "restores": restores,
            "revision": revision,
            "previous": self.rows[-1].hash if self.rows else GENESIS,
        }
        unsealed = LedgerRow.model_validate({**body, "hash": GENESIS})
        row = unsealed.model_copy(update={"hash": _hash(unsealed.model_dump(mode="json"))})
        self.ledger._append(row)
        self.rows.append(row)
        return row


def _hash(row: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({k: v for k, v in row.items() if k != "hash"}).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
