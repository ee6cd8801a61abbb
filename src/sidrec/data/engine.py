"""Where tables larger than memory are computed: by DuckDB on one machine, or by Spark on many, by one setting.

`SIDREC_DATA_ENGINE` is `polars` (the default: everything in memory, the fastest there), `duckdb`, or `spark`, with a
master as in `spark:local[4]` or `spark:k8s://https://...` where `spark-submit` has not chosen one. Both engines
compute the same Ibis expressions (`sidrec.data.relations`).
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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


class Engine(Protocol):
    """Reads tables, computes expressions over them and writes them, without holding one in memory."""

    def read(self, path: Path) -> "ir.Table":
        """Return a Parquet file, or a folder of its parts, as a table."""
        ...

    def write(self, rows: "ir.Table", path: Path) -> "ir.Table":
        """Write rows as Parquet in the order that they ask for, and return what was written."""
        ...

    def row(self, rows: "ir.Table") -> dict[str, Any]:
        """Return the only row of a table."""
        ...


def open_engine() -> Engine | None:
    """Return the engine that the environment names; None for polars, which needs none.

    Raises:
        UsageError: there is no such engine, or it is not installed.
    """
    name, _, master = os.environ.get(ENGINE_VARIABLE, "polars").partition(":")
    if name == "polars":
        return None
    try:
        if name == "duckdb":
            return DuckDB()
        if name == "spark":
            return Spark(master)
    except ModuleNotFoundError as absent:
        raise UsageError(
            f"{ENGINE_VARIABLE} is {name}, and there is no {absent.name}", next_step="pip install 'sidrec[spark]'"
        ) from absent
    raise UsageError(
        f"{ENGINE_VARIABLE} is {name!r}, expected polars, duckdb, spark or spark:MASTER",
        next_step=f"unset {ENGINE_VARIABLE} to compute in memory",
    )


class DuckDB:
    """One machine, tables on disk."""

    def __init__(self) -> None:
        import ibis

        # What memory cannot hold goes here, and is gone with the engine.
        self._spill = tempfile.TemporaryDirectory(prefix="sidrec-duckdb-")
        self._connection: Any = ibis.duckdb.connect(temp_directory=self._spill.name)

    def read(self, path: Path) -> "ir.Table":
        """Return a Parquet file, or a folder of its parts, as a table."""
        return self._connection.read_parquet(str(path / "*.parquet" if path.is_dir() else path))

    def write(self, rows: "ir.Table", path: Path) -> "ir.Table":
        """Write rows as one Parquet file."""
        self._connection.to_parquet(rows, str(path))
        return self.read(path)

    def row(self, rows: "ir.Table") -> dict[str, Any]:
        """Return the only row of a table."""
        return _only_row(rows)


class Spark:
    """Many machines, or this one as if it were many."""

    def __init__(self, master: str) -> None:
        import ibis
        from pyspark.sql import SparkSession  # type: ignore[import-not-found, unused-ignore]

        settings = _SPARK_SETTINGS | (_LOCAL_SETTINGS if master.startswith("local") else {})
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

    def row(self, rows: "ir.Table") -> dict[str, Any]:
        """Return the only row of a table."""
        return _only_row(rows)


def _only_row(rows: "ir.Table") -> dict[str, Any]:
    with warnings.catch_warnings():
        # From Ibis, about its own call of DuckDB.
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        (found,) = rows.to_pyarrow().to_pylist()
    return dict(found)


def conform(rows: "ir.Table", schema: Mapping[str, str]) -> "ir.Table":
    """Return the schema's columns in its order and types (Ibis names)."""
    return rows.select(**{name: rows[name].cast(kind) for name, kind in schema.items()})
