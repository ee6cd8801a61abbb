"""What users did, one row an event, in Parquet segments that are whole or absent.

An event is written once however often it is sent: `event_id` decides, and the first row stands. The same rows
are monitoring's labels and the feature store's fresh events.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sidrec.errors import CheckFailedError, UsageError
from sidrec.process import exclusive

SCHEMA_VERSION = 1

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "schema_version": pl.Int32,
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "event_time": pl.Int64,
    "request_id": pl.String,
}
SCHEMA = pl.Schema(_COLUMNS)

_MAX_TEXT = 256
_DAY_S = 86_400
_BAD_ROWS_NAMED = 5
_LOCK_WAIT_S = 30.0
_COMPACT_AT = 256


class Outcome(BaseModel):
    """One event of one user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str = Field(min_length=1, max_length=_MAX_TEXT, description="The sender's own key; decides what is new.")
    user_id: str = Field(min_length=1, max_length=_MAX_TEXT)
    item_id: str = Field(min_length=1, max_length=_MAX_TEXT)
    event_type: str = Field("purchase", min_length=1, max_length=_MAX_TEXT)
    event_time: int = Field(gt=0, description="Unix seconds, UTC.")
    request_id: str | None = Field(None, max_length=_MAX_TEXT, description="The answer that led to it, where known.")

    @field_validator("event_time")
    @classmethod
    def _not_in_the_future(cls, value: int) -> int:
        # A time in milliseconds would make its user fresh for ever, so it must not get in.
        if value > time.time() + _DAY_S:
            raise ValueError("more than a day in the future; unix seconds are expected, not milliseconds")
        return value


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: rows sent = new + duplicates."""

    new: int
    duplicates: int
    segment: Path | None


def parse_outcomes(rows: Sequence[Mapping[str, Any] | Outcome]) -> list[Outcome]:
    """Return the rows as outcomes, all of them or none.

    Raises:
        UsageError: a row is malformed, or two rows share an `event_id` and differ; the first few are named.
    """
    outcomes: list[Outcome] = []
    faults: list[str] = []
    by_id: dict[str, Outcome] = {}
    for number, row in enumerate(rows):
        try:
            outcome = row if isinstance(row, Outcome) else Outcome.model_validate(row)
        except ValidationError as error:
            faults.append(f"row {number}: {_what(error)}")
            continue
        if by_id.setdefault(outcome.event_id, outcome) != outcome:
            faults.append(f"row {number}: event_id {outcome.event_id!r} is used by another row with other values")
        outcomes.append(outcome)
    if faults:
        named = " | ".join(faults[:_BAD_ROWS_NAMED])
        more = f" | and {len(faults) - _BAD_ROWS_NAMED} more" if len(faults) > _BAD_ROWS_NAMED else ""
        raise UsageError(
            f"{len(faults)} of {len(rows)} events are refused, none was written: {named}{more}",
            next_step="correct these rows and send all of them again: an event that is sent twice counts once",
        )
    return outcomes


class OutcomeLog:
    """Appends outcomes that are new to a folder of segments `<UTC day of writing>/<unix ms>-<pid>.parquet`.

    `index.db` beside the segments says which event ids are in them. It is derived: deleted, damaged or behind, it
    is brought up to date from the segments at the next append.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, outcomes: Sequence[Outcome]) -> Appended:
        """Write the outcomes whose `event_id` is new as one segment and return what was new.

        Raises:
            UsageError: an `event_id` was recorded earlier with other values.
            BusyError: another writer held the log too long.
        """
        with (
            exclusive(self._folder / ".lock", "the outcome log", wait_s=_LOCK_WAIT_S),
            closing(self._open_index()) as index,
        ):
            new: dict[str, Outcome] = {}
            for outcome in outcomes:
                row = index.execute("SELECT digest FROM events WHERE event_id = ?", (outcome.event_id,)).fetchone()
                if row is None:
                    new.setdefault(outcome.event_id, outcome)
                elif row[0] != _digest(outcome):
                    raise UsageError(
                        f"event_id {outcome.event_id!r} was recorded earlier with other values; nothing was written",
                        evidence=self._folder,
                        next_step="give every event an id of its own",
                    )
            if not new:
                return Appended(0, len(outcomes), None)
            segment = self._write(frame(list(new.values())))
            self._cover(index, segment, new.values())
            self._compact(index, segment.parent)
            return Appended(len(new), len(outcomes) - len(new), segment)

    def _open_index(self) -> sqlite3.Connection:
        path = self._folder / "index.db"
        index = sqlite3.connect(path)
        try:
            self._catch_up(index)
        except sqlite3.DatabaseError:
            # A power cut can damage it; the segments can not be, so it is made again from them.
            index.close()
            path.unlink()
            index = sqlite3.connect(path)
            self._catch_up(index)
        return index

    def _catch_up(self, index: sqlite3.Connection) -> None:
        """Index segments that a killed writer, or another index, left uncovered."""
        # The index is derived, so it need not reach the disk before the answer: the segment has.
        index.execute("PRAGMA synchronous=OFF")
        with index:
            index.execute("CREATE TABLE IF NOT EXISTS events (event_id TEXT PRIMARY KEY, digest BLOB) WITHOUT ROWID")
            index.execute("CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY) WITHOUT ROWID")
        covered = {name for (name,) in index.execute("SELECT name FROM segments")}
        for segment in segments(self._folder):
            if _name(segment) not in covered:
                rows = _read_segment(segment).drop("schema_version").to_dicts()
                # Rows that are on disk stand, even where today's limits would refuse them.
                self._cover(index, segment, [Outcome.model_construct(**row) for row in rows])

    def _cover(self, index: sqlite3.Connection, segment: Path, outcomes: Iterable[Outcome]) -> None:
        with index:
            rows = [(outcome.event_id, _digest(outcome)) for outcome in outcomes]
            index.executemany("INSERT OR IGNORE INTO events VALUES (?, ?)", rows)
            index.execute("INSERT OR IGNORE INTO segments VALUES (?)", (_name(segment),))

    def _compact(self, index: sqlite3.Connection, day: Path) -> None:
        """Merge a day's segments once they are many: one event a call must not mean one file an event for ever.

        A crash before the old ones are gone leaves events twice, which readers and the index count once.
        """
        parts = segments(self._folder, day.name)
        if len(parts) < _COMPACT_AT:
            return
        merged = self._write(pl.concat([_read_segment(part) for part in parts]))
        with index:
            index.execute("INSERT OR IGNORE INTO segments VALUES (?)", (_name(merged),))
            index.executemany("DELETE FROM segments WHERE name = ?", [(_name(part),) for part in parts])
        for part in parts:
            part.unlink()

    def _write(self, table: pl.DataFrame) -> Path:
        now_ns = time.time_ns()
        day = self._folder / datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y-%m-%d")
        day.mkdir(parents=True, exist_ok=True)
        name = f"{now_ns // 1_000_000}-{os.getpid()}-{now_ns % 1_000_000:06d}.parquet"
        partial = day / f".{name}.tmp"
        table.write_parquet(partial, compression="zstd")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(day / name)
        return day / name


def frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Return outcomes as a table of `SCHEMA`."""
    rows = [{"schema_version": SCHEMA_VERSION, **outcome.model_dump()} for outcome in outcomes]
    return pl.DataFrame(rows, schema=SCHEMA)


def segments(folder: Path, day: str = "*") -> list[Path]:
    """Return the finished segments in writing order; half-written ones are never among them."""
    return sorted(path for path in folder.glob(f"{day}/*.parquet") if not path.name.startswith("."))


def read(folder: Path, *, since: int | None = None, until: int | None = None) -> pl.DataFrame:
    """Return the outcomes in `folder`, each event once, by event time; an empty table when there is none.

    Args:
        since: keep events at or after this time, unix seconds.
        until: keep events before this time.
    """
    table = _read_all(folder)
    # Folders merged from several hosts can hold an event twice: the first written stands.
    table = table.unique("event_id", keep="first", maintain_order=True)
    if since is not None:
        table = table.filter(pl.col("event_time") >= since)
    if until is not None:
        table = table.filter(pl.col("event_time") < until)
    return table.sort("event_time", maintain_order=True)


def _read_all(folder: Path) -> pl.DataFrame:
    for last_try in (False, False, True):
        try:
            tables = [_read_segment(path) for path in segments(folder)]
            return pl.concat(tables) if tables else SCHEMA.to_frame()
        except FileNotFoundError:
            # The writer merged segments after they were listed; the merged one is there now.
            if last_try:
                raise
    raise AssertionError("unreachable")


def _read_segment(path: Path) -> pl.DataFrame:
    table = pl.read_parquet(path)
    versions = table["schema_version"].unique().to_list() if "schema_version" in table.columns else [None]
    if versions != [SCHEMA_VERSION]:
        raise CheckFailedError(
            f"outcome segment {path.name} has schema version {versions}, this code reads {SCHEMA_VERSION}",
            evidence=path,
            next_step="read it with the version of sidrec that wrote it",
        )
    return table.select(list(SCHEMA)).cast(SCHEMA)


def _what(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']} (seen: {fault['input']!r:.60})"
        for fault in error.errors()
    )


def _name(segment: Path) -> str:
    return f"{segment.parent.name}/{segment.name}"


def _digest(outcome: Outcome) -> bytes:
    """Return a digest of an event's values, to tell a repeat from another event under the same id."""
    values = (outcome.user_id, outcome.item_id, outcome.event_type, outcome.event_time, outcome.request_id)
    return hashlib.sha256(repr(values).encode()).digest()[:16]
