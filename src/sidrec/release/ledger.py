"""The ledger: who asked for which revision, when, why and on which verdict; rows are only ever appended.

Each row holds the hash of the one before, so a changed, deleted, inserted or reordered row breaks the chain there. That
the end was cut off is seen by the head beside the rows, and by every machine that ever read further (`witness.py`).
Times are the wall's. `SIDREC_LEDGER_URL` names a team's PostgreSQL; without it the ledger is this state folder's file.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sidrec import home
from sidrec.errors import LedgerError, UsageError
from sidrec.release import first_version
from sidrec.release.ledger_file import Check
from sidrec.release.revision import Revision
from sidrec.release.row import (
    GENESIS,
    Action,
    BrokenChainError,
    LedgerRow,
    Stage,
    decisions,
    read_stored,
    seal,
)
from sidrec.release.witness import check_witness, read_witness, remember

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from sidrec.release.store import Contents, Store

__all__ = ["GENESIS", "URL_VARIABLE", "Action", "Check", "Ledger", "LedgerRow", "Writer", "decisions"]

URL_VARIABLE = "SIDREC_LEDGER_URL"


class Ledger:
    """The rows of one ledger: those of a file, of the database that `SIDREC_LEDGER_URL` names, or of this state folder.

    Args:
        path: an SQLite file; wins over the environment.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._url = "" if path is not None else os.environ.get(URL_VARIABLE, "").strip()
        self._file = path or home.ledger_path()
        self.path = self._said_url() if self._url else self._file

    def verify(self) -> Check:
        """Return every row after the whole chain was checked.

        Raises:
            LedgerError: the first broken row is named, or the chain ends before the row that its head, or this machine,
                remembers.
        """
        seen = read_witness(self._witness_path)
        if not self._url and self._first_version.exists():
            with self.writing() as writer:
                return _check(writer.rows)
        check = _check([]) if self._absent() else self._checked(self._store().read())
        check_witness(self._witness_path, seen, check.rows)
        remember(self._witness_path, check.rows)
        return check

    def rows(self) -> list[LedgerRow]:
        """Return every row, oldest first, after the whole chain was checked."""
        return self.verify().rows

    def desired(self) -> Revision | None:
        """Return the revision that servers ought to serve: the last one decided on."""
        decided = decisions(self.rows())
        return decided[-1].revision if decided else None

    def live(self, at: datetime | None = None) -> LedgerRow | None:
        """Return the row of the revision that was being served at a time (default: now), None before the first."""
        rows = [row for row in self.rows() if row.action == "live" and (at is None or row.time <= at)]
        return rows[-1] if rows else None

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Hold the ledger: what is read inside stays true until what is appended inside is stored, at the end of it.

        Where the body raises, nothing of it is stored. A ledger of the first versions is taken over first.

        Raises:
            LedgerError: the chain is broken; nothing is appended to a broken one.
            BusyError: another process held the ledger for 30 s.
        """
        from sidrec.release import store

        with self._store().writing() as connection:
            check = self._checked(store.contents(connection))
            check_witness(self._witness_path, read_witness(self._witness_path), check.rows)
            writer = Writer(check.rows, connection)
            old = None if self._url else first_version.found(self._first_version, writer.rows)
            if old is not None and not writer.rows:
                for row in old:
                    writer.store(row)
            yield writer
        if old is not None:
            first_version.put_aside(self._first_version, now_in=self.path)
        remember(self._witness_path, writer.rows)

    def record_live(self, revision: Revision, *, who: str, why: str) -> LedgerRow:
        """Append that a server now serves this revision; a no-op when the last live row says so already.

        Raises:
            LedgerError: nobody asked for this revision, or not with these contents.
        """
        with self.writing() as writer:
            asked = [row for row in decisions(writer.rows) if row.revision == revision]
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

    def take(self, rows: list[LedgerRow]) -> None:
        """Store the rows of another ledger, as they are, in this empty one.

        Raises:
            LedgerError: this ledger has rows.
        """
        with self.writing() as writer:
            if writer.rows:
                raise LedgerError(f"only an empty ledger takes rows over, this one has {len(writer.rows)}")
            for row in rows:
                writer.store(row)

    @property
    def _first_version(self) -> Path:
        """Where the first versions kept this state folder's ledger."""
        return self._file.with_suffix(".jsonl")

    @property
    def _witness_path(self) -> Path:
        if not self._url:
            return self._file.with_suffix(".witness")
        name = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        return home.ledger_path().with_name(f"{name}.witness")

    def _absent(self) -> bool:
        return not self._url and not self._file.exists()

    def _store(self) -> "Store":
        try:
            from sqlalchemy.engine import URL, make_url
            from sqlalchemy.exc import ArgumentError

            from sidrec.release.store import Store
        except ModuleNotFoundError as error:
            raise UsageError(
                "this installation cannot open a ledger's database",
                next_step="pip install 'sidrec[release]', or read an export: sidrec ledger verify --file FILE",
            ) from error
        if not self._url:
            return Store(URL.create("sqlite", database=str(self._file)))
        try:
            return Store(make_url(self._url))
        except ArgumentError as error:
            raise UsageError(f"{URL_VARIABLE} is no database URL", next_step="postgresql://user@host/name") from error

    def _said_url(self) -> str:
        return self._store().name

    def _checked(self, found: "Contents") -> Check:
        def broken(why: str) -> LedgerError:
            return LedgerError(
                why, evidence=self.path, next_step="restore it from a copy; nothing is appended to a broken ledger"
            )

        rows: list[LedgerRow] = []
        for number, stored in enumerate(found.rows, start=1):
            try:
                row = read_stored(number, stored.body, stored.hash, rows[-1].hash if rows else GENESIS)
            except BrokenChainError as error:
                raise broken(str(error)) from error
            if (stored.seq, stored.previous) != (row.seq, row.previous):
                raise broken(f"row {number} of the ledger is broken: its columns are not its contents; it was altered")
            rows.append(row)
        if (found.head_seq, found.head_hash) != (len(rows), rows[-1].hash if rows else GENESIS):
            raise broken(
                f"the ledger has {len(rows)} rows, its head remembers row {found.head_seq}"
                f" ({found.head_hash[:12]}…): rows were cut off or rewritten"
            )
        return _check(rows)


@dataclass(slots=True)
class Writer:
    """The one process that may append, and the rows it saw when it got the ledger."""

    rows: list[LedgerRow]
    _connection: "Connection" = field(repr=False)

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
        bundle: str | None = None,
        stage: Stage | None = None,
        approves: int | None = None,
        pending_until: datetime | None = None,
        overrides: tuple[str, ...] = (),
        measured: dict[str, float] | None = None,
        items: tuple[str, ...] | None = None,
    ) -> LedgerRow:
        """Return the row, which is stored once the body of `writing` ends.

        Args:
            bundle: what the row is about; the champion's where it is left out.
        """
        row = seal(
            {
                "seq": len(self.rows) + 1,
                "time": datetime.now(UTC),
                "action": action,
                "who": who,
                "why": why,
                "bundle": bundle or revision.arms[0].bundle.bundle_id,
                "verdicts": verdicts,
                "second_approver": second_approver,
                "restores": restores,
                "revision": revision,
                "stage": stage,
                "approves": approves,
                "pending_until": pending_until,
                "overrides": overrides,
                "measured": measured,
                "items": items,
                "previous": self.rows[-1].hash if self.rows else GENESIS,
            }
        )
        self.store(row)
        return row

    def store(self, row: LedgerRow) -> None:
        """Store a sealed row."""
        from sidrec.release.store import append

        append(self._connection, row)
        self.rows.append(row)


def _check(rows: list[LedgerRow]) -> Check:
    return Check(rows=rows, head=rows[-1].hash if rows else GENESIS)
