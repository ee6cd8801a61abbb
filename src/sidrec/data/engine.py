"""Where tables are computed: in memory by polars, beyond it by DuckDB on one machine or Spark on many, by one setting.

`SIDREC_DATA_ENGINE` is `polars` (the default: everything in memory, the fastest there), `duckdb`, with the memory that
it may take before it goes to disk as in `duckdb:4GB` (else most of the machine's), or `spark`, with a master as in
`spark:local[4]` or `spark:k8s://https://...` where `spark-submit` has not chosen one. Every engine computes the same
Narwhals expressions (`sidrec.data.tables`); the Ibis expressions of `sidrec.data.relations` are for the two that hold
no table in memory.
"""

import os
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from sidrec.data.relations import totals_of
from sidrec.data.tables import Kept, Polars, Rows, as_rows, values
from sidrec.errors import UsageError

if TYPE_CHECKING:
    import ibis.expr.types as ir  # type: ignore[import-untyped]

ENGINE_VARIABLE = "SIDREC_DATA_ENGINE"
_SPARK_SETTINGS = {
    # Dates and times are UTC everywhere.
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
    # A folder of tables holds tables alone: polars refuses one with other files in it.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}
# Spark of this one machine listens to nobody else, and needs no hundred partitions.
_LOCAL_SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "8",
}


def open_engine() -> "Polars | DuckDB | Spark":
    """Return the engine that the environment names.

    Raises:
        UsageError: there is no such engine, or it is not installed.
    """
    name, _, more = os.environ.get(ENGINE_VARIABLE, "polars").partition(":")
    if name == "polars":
        return Polars()
    try:
        if name == "duckdb":
            return DuckDB(more)
        if name == "spark":
            return Spark(more)
    except ModuleNotFoundError as absent:
        raise UsageError(
            f"{ENGINE_VARIABLE} is {name}, and there is no {absent.name}", next_step="pip install 'sidrec[spark]'"
        ) from absent
    raise UsageError(
        f"{ENGINE_VARIABLE} is {name!r}, expected polars, duckdb, spark, duckdb:MEMORY or spark:MASTER",
        next_step=f"unset {ENGINE_VARIABLE} to compute in memory",
    )


class _Stored(ABC):
    """What engines have in common that write what they compute."""

    @abstractmethod
    def read(self, path: Path) -> "ir.Table":
        """Return a Parquet file, or a folder of its parts, as a table."""

    @abstractmethod
    def write(self, rows: "ir.Table", path: Path) -> "ir.Table":
        """Write rows as Parquet in the order that they ask for, and return what was written."""

    def row(self, rows: "ir.Table") -> dict[str, Any]:
        """Return the only row of a table."""
        (found,) = values(as_rows(rows))
        return found

    def keep(self, rows: Rows, path: Path) -> Kept:
        """Compute rows and write them."""
        return Kept(as_rows(self.write(rows.to_native(), path)), path)

    def lift(self, frame: pl.DataFrame, path: Path) -> Rows:
        """Write a frame where the engine reads it."""
        frame.write_parquet(path)
        return as_rows(self.read(path))

    def totals(self, rows: Rows, key: tuple[str, ...]) -> Rows:
        """Return each key's first position and total quantity."""
        return as_rows(totals_of(rows.to_native(), key))


class DuckDB(_Stored):
    """One machine, tables on disk."""

    def __init__(self, memory: str) -> None:
        import ibis
        from duckdb import Error

        # What memory cannot hold goes here, and is gone with the engine.
        self._spill = tempfile.TemporaryDirectory(prefix="sidrec-duckdb-")
        limit = {"memory_limit": memory} if memory else {}
        try:
            self._connection: Any = ibis.duckdb.connect(temp_directory=self._spill.name, **limit)
        except Error as error:
            raise UsageError(
                f"{ENGINE_VARIABLE} is 'duckdb:{memory}', expected a size such as duckdb:4GB ({error})",
                next_step=f"set {ENGINE_VARIABLE}=duckdb for most of this machine's memory",
            ) from error

    def read(self, path: Path) -> "ir.Table":
        """Return a Parquet file, or a folder of its parts, as a table."""
        return self._connection.read_parquet(str(path / "*.parquet" if path.is_dir() else path))

    def write(self, rows: "ir.Table", path: Path) -> "ir.Table":
        """Write rows as one Parquet file."""
        self._connection.to_parquet(rows, str(path))
        return self.read(path)

    def each(self, work: Callable[[int], str | None], count: int) -> list[str | None]:
        """Do the work one after the other, so that one piece is in memory at a time."""
        return [work(number) for number in range(count)]


class Spark(_Stored):
    """Many machines, or this one as if it were many."""

    def __init__(self, master: str) -> None:
        import ibis
        from pyspark.sql import SparkSession  # type: ignore[import-not-found, unused-ignore]

        settings = dict(_SPARK_SETTINGS)
        if master.startswith("local"):
            settings |= _LOCAL_SETTINGS
            # This machine's workers run what runs here, not the first python3 that is found.
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName("sidrec")
        if master:
            builder = builder.master(master)
        for name, value in settings.items():
            builder = builder.config(name, value)
        self.session: Any = builder.getOrCreate()
        self.session.sparkContext.setLogLevel("ERROR")
        self._connection: Any = ibis.pyspark.connect(self.session)

    def read(self, path: Path) -> "ir.Table":
        """Return a Parquet file, or a folder of its parts, as a table."""
        return self._connection.read_parquet(str(path))

    def write(self, rows: "ir.Table", path: Path) -> "ir.Table":
        """Write rows as a folder of Parquet files, whose names are in the order of the rows."""
        shutil.rmtree(path, ignore_errors=True)
        self._connection.to_parquet(rows, path)
        for part in path.glob(".*.crc"):
            part.unlink()
        for part in path.glob("part-*"):
            # Without Spark's random name: the same rows are the same files.
            part.rename(path / f"{'-'.join(part.name.split('-')[:2])}.parquet")
        return self.read(path)

    def each(self, work: Callable[[int], str | None], count: int) -> list[str | None]:
        """Do the work wherever a worker is free; each has this package, and reads and writes the same folders."""
        context = self.session.sparkContext
        return list(context.parallelize(range(count), count).map(work).collect())
