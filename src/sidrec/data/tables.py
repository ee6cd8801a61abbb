"""Tables that any engine computes: Narwhals expressions over rows, and what was computed of them.

Narwhals is polars' language; it computes on polars frames, and on the Ibis tables of DuckDB and Spark
(`sidrec.data.engine`).
"""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import narwhals as nw
import polars as pl

from sidrec.data.events import total

Rows = nw.LazyFrame[Any]
"""A table yet to be computed, whichever engine does it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows computed once: `rows` to go on with, `place` where they lie, a frame in memory or Parquet."""

    rows: Rows
    place: pl.DataFrame | Path

    @property
    def frame(self) -> pl.DataFrame:
        """All rows, in memory."""
        return self.place if isinstance(self.place, pl.DataFrame) else pl.read_parquet(self.place)

    def move(self, path: Path) -> None:
        """Leave the rows at `path` as Parquet; `rows` no longer computes."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if isinstance(self.place, pl.DataFrame):
            # As one piece: how many there are depends on threads, and would be seen in the file.
            self.place.rechunk().write_parquet(path)
        else:
            self.place.replace(path)


class Engine(Protocol):
    """Computes rows and keeps them."""

    def keep(self, rows: Rows, path: Path) -> Kept:
        """Compute rows, in the order that they ask for; `path` is where they go if they do not stay in memory."""
        ...

    def lift(self, frame: pl.DataFrame, path: Path) -> Rows:
        """Return a frame, which is small, as rows of this engine."""
        ...

    def totals(self, rows: Rows, key: tuple[str, ...]) -> Rows:
        """Return each key's first position, and its quantities added up in the order of their positions.

        Narwhals has no sum in an order, and without one parts of a unit add up to another number in every run.
        """
        ...


class StoredEngine(Engine, Protocol):
    """Reads tables, computes Ibis expressions over them and writes them, without holding one in memory."""

    def read(self, path: Path) -> Any:
        """Return a Parquet file, or a folder of its parts, as a table."""
        ...

    def write(self, rows: Any, path: Path) -> Any:
        """Write rows as Parquet in the order that they ask for, and return what was written."""
        ...

    def row(self, rows: Any) -> dict[str, Any]:
        """Return the only row of a table."""
        ...

    def each(self, work: Callable[[int], str | None], count: int) -> list[str | None]:
        """Return what `work` returns for 0..count-1, where and in which order the engine likes."""
        ...


class Polars:
    """One machine, tables in memory."""

    def keep(self, rows: Rows, path: Path) -> Kept:
        """Compute rows in memory."""
        # What is kept is sorted or joined, and polars' streaming engine sorts in five times the time.
        frame: pl.DataFrame = rows.collect("polars", engine="in-memory").to_native()
        return Kept(as_rows(frame.lazy()), frame)

    def lift(self, frame: pl.DataFrame, path: Path) -> Rows:
        """Return a frame as rows."""
        return as_rows(frame.lazy())

    def totals(self, rows: Rows, key: tuple[str, ...]) -> Rows:
        """Return each key's first position and total quantity."""
        lines = rows.select(*key, "position", "quantity").to_native().sort("position")
        totals = lines.group_by(key, maintain_order=True).agg(pl.col("position").first(), total("quantity"))
        return as_rows(totals.select("position", "quantity"))


def as_rows(native: Any) -> Rows:
    """Return a table of an engine, or a lazy frame of polars, as rows."""
    rows: Rows = nw.from_native(native)
    return rows


def values(rows: Rows) -> list[dict[str, Any]]:
    """Return few rows as Python values."""
    with warnings.catch_warnings():
        # From Ibis, about its own call of DuckDB.
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        return rows.collect("polars").rows(named=True)


def counted(rows: Rows, /, **counts: nw.Expr) -> dict[str, int]:
    """Return whole numbers that expressions make of all rows; of no row, each is 0."""
    if not counts:
        return {}
    (found,) = values(rows.select(**counts))
    return {name: int(value or 0) for name, value in found.items()}
