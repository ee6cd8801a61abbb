"""A source is read whole or refused with the rule that it broke."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import narwhals as nw
import polars as pl

from sidrec.data.tables import Rows, counted
from sidrec.data.rows import RowRule
from sidrec.errors import ValidationFailedError

PLACE = "__place__"
"""The column that says which row of the file a row is, from 0."""

SUFFIXES = (".parquet", ".csv", ".csv.gz")


class SourceRefusedError(ValidationFailedError):
    """A file cannot be read as a table; `rule` is the rule that says so."""

    def __init__(self, rule: str, sentence: str, *, evidence: Path) -> None:
        super().__init__(f"rule {rule}: {sentence}", evidence=evidence, next_step="docs/your-data.md lists every rule")
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFormat:
    """What the text of a source column looks like, checked before anything is parsed."""

    column: str
    meaning: str
    table: str = "events"
    pattern: str | None = None
    mostly: float = 0.99
    max_null_share: float = 1.0
    max_distinct: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One batch in common columns (`sidrec.data.events.PARSED`), and as the file has it.

    `rows` and `shown` share `PLACE`, a row's place in the file. `merge_key` names the columns that make two kept rows
    one event; empty keeps every row. `has_calendar` is false where times were derived from order: nothing about days
    can be checked then.
    """

    rows: Rows
    shown: Rows
    items: Rows | None
    rules: tuple[RowRule, ...]
    merge_key: tuple[str, ...]
    observed: dict[str, int] = field(default_factory=dict)
    has_calendar: bool = True
    derived: str | None = None


class Adapter(Protocol):
    """Knows one raw format: its files, its columns, its formats, its row rules."""

    def paths(self) -> dict[str, Path]:
        """Return the files, by table name: events, and items where there is such a file."""
        ...

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that each table must have, by table name."""
        ...

    def formats(self) -> tuple[ColumnFormat, ...]:
        """Return what the columns must look like."""
        ...

    def rows(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return events, or a piece of them with `PLACE`, in common columns; called only after the formats held."""
        ...

    def items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Return the items file in common columns."""
        ...

    def source(self, rows: Rows, shown: Rows, items: Rows | None) -> Source:
        """Return the batch, from all pieces of its rows."""
        ...


def read_table(path: Path) -> pl.DataFrame:
    """Return a Parquet or CSV file's rows; a CSV's columns are all text.

    Raises:
        SourceRefusedError: the file is absent, empty, of another kind, or not whole.
    """
    check_file(path)
    with whole(path):
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    if table.is_empty():
        raise SourceRefusedError("readable", f"{path} is empty (columns, but no rows)", evidence=path)
    return table


def check_file(path: Path) -> None:
    """Refuse what cannot be a table before anything reads it.

    Raises:
        SourceRefusedError: the file is absent, empty or of another kind.
    """
    if not path.exists():
        raise SourceRefusedError("readable", f"there is no file {path}", evidence=path)
    if not path.is_file() or not path.name.endswith(SUFFIXES):
        raise SourceRefusedError("readable", f"{path} is none of {', '.join(SUFFIXES)}", evidence=path)
    if path.stat().st_size == 0:
        raise SourceRefusedError("readable", f"{path} is empty (0 bytes)", evidence=path)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """Refuse a file that polars cannot read inside.

    Raises:
        SourceRefusedError: with polars' own cause.
    """
    try:
        yield
    except pl.exceptions.NoDataError:
        raise SourceRefusedError("readable", f"{path} is empty (no line of data)", evidence=path) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "a whole Parquet file" if path.suffix == ".parquet" else "a well-formed CSV file"
        cause = str(error).strip().splitlines()[0]
        raise SourceRefusedError("readable", f"{path} is not {kind}: {cause:.160}", evidence=path) from error


def as_text(table: pl.DataFrame, columns: Iterable[str], *, path: Path) -> pl.DataFrame:
    """Return those of the columns that the table has, as text.

    Raises:
        SourceRefusedError: a column holds lists, structs or bytes.
    """
    present = [column for column in columns if column in table.columns]
    for column in present:
        dtype = table[column].dtype
        if dtype.is_nested() or dtype == pl.Binary:
            raise SourceRefusedError("schema", f"column {column!r} holds {dtype}, not single values", evidence=path)
    return table.select(pl.col(present).cast(pl.String))


def identifier(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a column as identifiers: stripped text, null for blank, `13085.0` read as `13085`."""
    text = column.cast(pl.String).str.strip_chars()
    if dtype.is_float():
        text = text.str.strip_suffix(".0")
    return pl.when(text != "").then(text)


def number(column: pl.Expr) -> pl.Expr:
    """Return a column as float64; NaN, and text that is no number, become null."""
    return column.cast(pl.Float64, strict=False).fill_nan(None)


_TEXT_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
)
_ZONED_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
_UNIT_DIVISOR = {"s": 1, "ms": 1_000, "us": 1_000_000}


def unix_seconds(column: pl.Expr, dtype: pl.DataType, unit: str) -> pl.Expr:
    """Return a column of times as unix seconds, null where a value is no time.

    Dates and naive times count as UTC; ISO 8601 text with a zone is converted. `unit` is the unit of
    whole numbers: a file's numbers are never guessed.
    """
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return column.dt.epoch("s").cast(pl.Int64)
    if dtype.is_numeric():
        return (column.cast(pl.Int64, strict=False) // _UNIT_DIVISOR[unit]).cast(pl.Int64)
    text = column.cast(pl.String).str.strip_chars()
    readings = [text.cast(pl.Int64, strict=False) // _UNIT_DIVISOR[unit]]
    readings += [text.str.to_datetime(f, time_unit="us", strict=False).dt.epoch("s") for f in _TEXT_FORMATS]
    readings += [
        text.str.to_datetime(f, time_unit="us", time_zone="UTC", strict=False).dt.epoch("s") for f in _ZONED_FORMATS
    ]
    return pl.coalesce(readings).cast(pl.Int64)


def repeats(shown: Rows) -> int:
    """Return how many rows of a file equal an earlier one."""
    columns = [name for name in shown.collect_schema().names() if name != PLACE]
    different = shown.group_by(columns).agg(nw.len())
    return counted(shown, rows=nw.len())["rows"] - counted(different, rows=nw.len())["rows"]
