"""One row per answered request, in Parquet segments that are whole or absent.

The writer is buffered and bounded: a crash loses at most its buffer, and a row that finds it full is dropped
and counted. Nothing here blocks the request that is logged.
"""

import dataclasses
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
"""1 had no `stats`, 2 no `ranks` and `propensities`; their rows read as rows without any."""

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "schema_version": pl.Int32,
    "request_id": pl.String,
    "user_id": pl.String,
    "wall_time_ms": pl.Int64,
    "event_time": pl.Int64,
    "arm": pl.String,
    "bundle_id": pl.String,
    "revision": pl.Int32,
    "experiment": pl.String,
    "surface": pl.String,
    "k": pl.Int32,
    "exclude_seen": pl.Boolean,
    "history_source": pl.String,
    "history_length": pl.Int32,
    "known_items": pl.Int32,
    "item_ids": pl.List(pl.String),
    "semantic_ids": pl.List(pl.List(pl.Int32)),
    "scores": pl.List(pl.Float32),
    "source": pl.String,
    "feature_age_s": pl.Int64,
    "latency_ms": pl.Float32,
    "beam_width": pl.Int32,
    "valid_beams": pl.Int32,
    "group_size": pl.Int32,
    "stats": pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})),
    "ranks": pl.List(pl.Int32),
    "propensities": pl.List(pl.Float64),
}
SCHEMA = pl.Schema(_COLUMNS)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What one request got, and from what."""

    request_id: str
    user_id: str | None
    wall_time_ms: int
    event_time: int
    arm: str
    bundle_id: str
    revision: int
    experiment: str | None
    surface: str | None
    k: int
    exclude_seen: bool
    history_source: str
    history_length: int
    known_items: int
    item_ids: list[str]
    semantic_ids: list[list[int]]
    scores: list[float]
    source: str
    feature_age_s: int | None
    latency_ms: float
    beam_width: int
    valid_beams: int
    group_size: int
    stats: list[dict[str, str | float]] = field(default_factory=list)
    """What the search says of itself, as rows of name and value."""
    ranks: list[int] | None = None
    """Of a drawn answer: each item's place among the candidates, best = 0; None where nothing was drawn."""
    propensities: list[float] | None = None
    """Of a drawn answer: each item's chance to be among those shown."""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class WriterStats:
    """Where every row handed to a writer is: appended = written + buffered + dropped."""

    appended: int
    written: int
    buffered: int
    dropped: int
    segments: int


class ExposureWriter:
    """Collects rows and writes a segment every `flush_s` seconds, every `segment_rows` rows, and on close.

    Segments are `<folder>/<UTC day of writing>/<unix ms>-<writer>-<number>.parquet`, `writer` drawn at random: several
    servers, also in containers that all call themselves process 1, write into one folder. If a segment cannot be
    written, its rows stay buffered for the next try until `max_rows` is reached; from there on rows are dropped and
    counted.
    """

    def __init__(
        self, folder: Path, *, flush_s: float = 5.0, segment_rows: int = 2_000, max_rows: int = 20_000
    ) -> None:
        self._folder = folder
        self._name = secrets.token_hex(4)
        self._flush_s = flush_s
        self._segment_rows = segment_rows
        self._max_rows = max_rows
        self._rows: list[Exposure] = []
        self._writing = 0
        self._appended = self._written = self._dropped = self._segments = 0
        self._last_error: str | None = None
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="exposure-writer")
        self._thread.start()

    def append(self, row: Exposure) -> None:
        """Take a row; a full buffer drops it and counts the drop."""
        with self._lock:
            self._appended += 1
            if self._closed or len(self._rows) + self._writing >= self._max_rows:
                self._dropped += 1
                return
            self._rows.append(row)
            full = len(self._rows) >= self._segment_rows
        if full:
            self._wake.set()

    def stats(self) -> WriterStats:
        """Return the counts so far."""
        with self._lock:
            buffered = len(self._rows) + self._writing
            return WriterStats(self._appended, self._written, buffered, self._dropped, self._segments)

    @property
    def last_error(self) -> str | None:
        """Why the newest segment could not be written, None if it could."""
        return self._last_error

    def flush(self) -> None:
        """Write what is buffered now.

        Raises:
            OSError: the segment cannot be written; its rows are still buffered.
        """
        with self._flush_lock:
            with self._lock:
                rows, self._rows = self._rows, []
                self._writing = len(rows)
            if not rows:
                return
            done = False
            try:
                self._write(rows)
                done = True
            finally:
                with self._lock:
                    self._writing = 0
                    if done:
                        self._written += len(rows)
                        self._segments += 1
                    else:
                        self._rows = rows + self._rows

    def close(self) -> None:
        """Write the rest and stop; a row appended later counts as dropped."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            try:
                self.flush()
                self._last_error = None
            except (OSError, pl.exceptions.PolarsError) as error:  # a full disk is either, by where it is met
                # The rows are still buffered; `last_error` and the buffer's size say so to whoever watches.
                if self._last_error is None:
                    log.error("event=exposures_unwritable folder=%s error=%s", self._folder, error)
                self._last_error = str(error)
                time.sleep(min(self._flush_s, 1.0))

    def _write(self, rows: list[Exposure]) -> None:
        now = time.time()
        day = self._folder / datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        day.mkdir(parents=True, exist_ok=True)
        name = f"{int(now * 1000)}-{self._name}-{self._segments:06d}.parquet"
        partial = day / f".{name}.tmp"
        try:
            frame(rows).write_parquet(partial, compression="zstd")
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(day / name)
        finally:
            partial.unlink(missing_ok=True)  # what a full disk left of it would fill the disk further


def frame(rows: list[Exposure]) -> pl.DataFrame:
    """Return rows as a table of `SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for row in rows:
        for column in dataclasses.fields(row):
            columns[column.name].append(getattr(row, column.name))
    return pl.DataFrame(columns, schema=SCHEMA)


def segments(folder: Path) -> Iterator[Path]:
    """Yield the finished segments in writing order; half-written ones are never among them."""
    yield from sorted(p for p in folder.glob("*/*.parquet") if not p.name.startswith("."))


def scan(folder: Path) -> pl.LazyFrame:
    """Return every row in `folder` lazily, of older versions too; an empty table of the same schema without any."""
    paths = list(segments(folder))
    if not paths:
        return SCHEMA.to_frame().lazy()
    return pl.scan_parquet(paths, schema=SCHEMA, missing_columns="insert")


def read(folder: Path) -> pl.DataFrame:
    """Return every row in `folder`, by wall time; an empty table of the same schema when there is none."""
    return scan(folder).collect().sort("wall_time_ms", maintain_order=True)
