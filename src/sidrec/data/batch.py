"""A batch as its files have it, and then in common columns: whole in memory, or piece by piece on disk."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl

from sidrec.data.adapters.source import PLACE, Adapter, Source, SourceRefusedError, check_file, read_table, whole
from sidrec.data.tables import Polars, Rows, StoredEngine, as_rows

PIECE_ROWS = 1 << 18


class InMemory:
    """One piece, the whole file: `events` as typed there, `schema` its types, `items` the items file if there is one."""

    events: pl.DataFrame

    def __init__(self, adapter: Adapter, engine: Polars, folder: Path) -> None:
        raw = read_table(adapter.paths()["events"])
        self.schema = raw.schema
        self.events = placed(raw)
        self.items = _read_items(adapter)
        self.adapter, self.engine, self.folder = adapter, engine, folder

    def parse(self) -> Source:
        """Return the batch in common columns."""
        rows = self.engine.lift(self.adapter.rows(self.events), self.folder / "parsed")
        shown = self.engine.lift(self.events, self.folder / "shown")
        return self.adapter.source(rows, shown, _items(self))


class OnDisk:
    """As many pieces as the file has rows for, one in memory at a time: `events` is a folder of them, as text."""

    events: Path

    def __init__(self, adapter: Adapter, engine: StoredEngine, folder: Path) -> None:
        # Workers elsewhere stand in another folder.
        self.adapter, self.engine, self.folder = adapter, engine, folder.absolute()
        self._path = adapter.paths()["events"]
        self._raw = _as_parquet(self._path, folder).absolute()
        with whole(self._path):
            scan = pl.scan_parquet(self._raw)
            self.schema = scan.collect_schema()
            rows = int(scan.select(pl.len()).collect().item())
        if not rows:
            raise SourceRefusedError("readable", f"{self._path} is empty (columns, but no rows)", evidence=self._path)
        self._rows = PIECE_ROWS
        self._num_pieces = -(-rows // PIECE_ROWS)
        self.items = _read_items(adapter)
        self.events = self._each(as_shown, "shown")

    def parse(self) -> Source:
        """Return the batch in common columns, its pieces parsed wherever the engine likes."""
        parsed = self._each(self.adapter.rows, "parsed")
        rows, shown = (as_rows(self.engine.read(folder)) for folder in (parsed, self.events))
        return self.adapter.source(rows, shown, _items(self))

    def _each(self, change: Callable[[pl.DataFrame], pl.DataFrame], name: str) -> Path:
        """Write each piece, changed, to a part of a folder.

        Raises:
            SourceRefusedError: a piece cannot be read.
        """
        folder = self.folder / name
        folder.mkdir()
        work = partial(_piece, self._raw, self._path, change, folder, self._rows)
        for fault in self.engine.each(work, self._num_pieces):
            if fault is not None:
                raise SourceRefusedError("readable", fault, evidence=self._path)
        return folder


def _piece(
    raw: Path, path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], folder: Path, rows: int, number: int) -> str | None:
    """Write one changed piece; return what is wrong with the file, for an exception would not say it from afar."""
    start = number * rows
    try:
        with whole(path):
            piece = pl.scan_parquet(raw).slice(start, rows).collect()
    except SourceRefusedError as error:
        return error.message.removeprefix("rule readable: ")
    change(placed(piece, start)).write_parquet(folder / f"part-{number:05d}.parquet")
    return None


def placed(rows: pl.DataFrame, start: int = 0) -> pl.DataFrame:
    """Return rows with their places in the file, of which they are the ones from `start` on."""
    return rows.with_columns(pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias(PLACE))


def as_shown(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that have a text form as text, the others as they are."""
    return rows.with_columns(
        pl.col(name).cast(pl.String)
        for name, dtype in rows.schema.items()
        if name != PLACE and not dtype.is_nested() and dtype != pl.Binary
    )


def _as_parquet(path: Path, folder: Path) -> Path:
    """Return the events file as Parquet, of which any piece can be read; a CSV is read once, in one stream.

    Raises:
        SourceRefusedError: the file is absent, empty, of another kind, or not whole.
    """
    check_file(path)
    if path.suffix == ".parquet":
        return path
    with whole(path):
        pl.scan_csv(path, infer_schema=False).sink_parquet(folder / "raw.parquet")
    return folder / "raw.parquet"


def _read_items(adapter: Adapter) -> pl.DataFrame | None:
    path = adapter.paths().get("items")
    return None if path is None else read_table(path)


def _items(batch: "Batch") -> Rows | None:
    if batch.items is None:
        return None
    return batch.engine.lift(batch.adapter.items(batch.items), batch.folder / "items")


Batch = InMemory | OnDisk


def open_batch(adapter: Adapter, engine: Polars | StoredEngine, folder: Path) -> Batch:
    """Return an adapter's batch; `folder` is where an engine that holds no table in memory puts its pieces.

    Raises:
        SourceRefusedError: a file cannot be read as a table.
    """
    return InMemory(adapter, engine, folder) if isinstance(engine, Polars) else OnDisk(adapter, engine, folder)
