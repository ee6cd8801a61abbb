"""Where the ledger's rows lie: an SQLite file, or a PostgreSQL database that a team shares.

The database keeps the promise too, not only who writes to it: triggers refuse to change or delete a row, to append one
that is not the next, and to move the head anywhere but to the row just appended. One transaction holds a decision, from
the reading that it rests on to its row; the second of two writers waits, and reads what the first one wrote.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import CheckConstraint, Column, Integer, MetaData, String, Table, Text, create_engine, event, select
from sqlalchemy import inspect as schema_of
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool

from sidrec.errors import BusyError, LedgerError, LedgerUnreachableError, UsageError
from sidrec.release import triggers
from sidrec.release.row import GENESIS, LedgerRow

WAIT_S: Final = 30.0
"""How long a writer waits for another one."""
_SCHEMA_VERSION: Final = 1
# Any number that nothing else in the database locks.
_CREATING: Final = 5_149_268_114

_metadata = MetaData()
ROWS = Table(
    "sidrec_ledger",
    _metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("previous", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("body", Text, nullable=False),
)
HEAD = Table(
    "sidrec_ledger_head",
    _metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)


class Stored(NamedTuple):
    """One row as it is stored."""

    seq: int
    previous: str
    hash: str
    body: str


class Contents(NamedTuple):
    """Every stored row in order, and what the head says of them."""

    rows: list[Stored]
    head_seq: int
    head_hash: str


class Store:
    """The rows in one database."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.name = str(self.file) if self.file else url.render_as_string(hide_password=True)

    def read(self) -> Contents:
        """Return what is stored as of one moment.

        Raises:
            LedgerError: the database cannot be reached, or is none.
        """
        if self.file is not None and not self.file.exists():
            return Contents([], 0, GENESIS)
        with self._connected(writing=False) as connection:
            return contents(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Hold the ledger for one transaction: what is read in it stays true until what is appended in it is stored.

        Raises:
            BusyError: another writer held it for 30 s.
            LedgerError: the database cannot be reached, is none, or refused a row.
        """
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._connected(writing=True) as connection:
            if not schema_of(connection).has_table(HEAD.name):
                _create(connection)
            # In PostgreSQL this row is the lock; SQLite has locked the file since BEGIN IMMEDIATE.
            connection.execute(select(HEAD).with_for_update())
            yield connection

    @contextmanager
    def _connected(self, *, writing: bool) -> Iterator[Connection]:
        try:
            with (
                _engine(self.url).connect() as connection,
                connection.execution_options(sidrec_writing=writing).begin(),
            ):
                yield connection
        except DBAPIError as error:
            raise _said(error, self.name) from error


def contents(connection: Connection) -> Contents:
    """Return what is stored, as this transaction sees it."""
    if not schema_of(connection).has_table(HEAD.name):
        return Contents([], 0, GENESIS)
    rows = [Stored(*row) for row in connection.execute(select(ROWS).order_by(ROWS.c.seq))]
    head = connection.execute(select(HEAD)).one_or_none()
    if head is None or head.schema_version != _SCHEMA_VERSION:
        seen = "none" if head is None else f"schema_version {head.schema_version}"
        raise LedgerError(f"the ledger's head is {seen}, this sidrec reads schema_version {_SCHEMA_VERSION}")
    return Contents(rows, head.seq, head.hash)


def append(connection: Connection, row: LedgerRow) -> None:
    """Store a row and move the head to it; both are there once the transaction ends, or neither."""
    values = Stored(row.seq, row.previous, row.hash, row.body)._asdict()
    connection.execute(ROWS.insert().values(**values))
    connection.execute(HEAD.update().values(seq=row.seq, hash=row.hash))


def _create(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATING})")
        if schema_of(connection).has_table(HEAD.name):
            return
    _metadata.create_all(connection)
    connection.execute(HEAD.insert().values(id=1, schema_version=_SCHEMA_VERSION, seq=0, hash=GENESIS))
    for statement in triggers.statements(connection.dialect.name):
        connection.exec_driver_sql(statement)


@lru_cache(maxsize=8)
def _engine(url: URL) -> Engine:
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UsageError(f"the ledger lies in SQLite or PostgreSQL, not in {backend}", next_step="SIDREC_LEDGER_URL")
    if backend == "postgresql" and url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {"timeout": WAIT_S} if backend == "sqlite" else {"connect_timeout": 10}
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UsageError(
            f"this installation cannot talk to {url.drivername}", next_step="pip install 'sidrec[postgres]'"
        ) from error
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite if backend == "sqlite" else _begin_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin a transaction of its own kind, too late.
    connection.isolation_level = None
    [[_, _, file]] = connection.execute("PRAGMA database_list").fetchall()
    if os.access(Path(file).parent, os.W_OK):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("sidrec_writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("sidrec_writing"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_S:.0f}s'")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def _said(error: DBAPIError, name: str) -> LedgerError | BusyError:
    text = str(error.orig).strip().splitlines()[0]
    if "database is locked" in text or getattr(error.orig, "sqlstate", None) == "55P03":
        return BusyError(f"the ledger was locked for {WAIT_S:.0f} s", evidence=name)
    if triggers.REFUSAL in text:
        return LedgerError(f"the ledger refused: {text}", evidence=name, next_step="sidrec ledger verify")
    # A broken file is no absent server: what cannot be read here is not taken for what cannot be reached.
    kind = LedgerUnreachableError if isinstance(error, OperationalError) and "postgresql" in name else LedgerError
    return kind(
        f"the ledger cannot be read: {text}",
        evidence=name,
        next_step="restore it from a copy, or see SIDREC_LEDGER_URL; servers serve on what they have",
    )
