"""Outcome events from a file: CSV, Parquet or JSON lines, checked whole before the first is sent."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from sidrec.errors import UsageError
from sidrec.outcome import Outcome, parse_outcomes

_IDS = ("event_id", "user_id", "item_id", "event_type", "request_id")
_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    # Every CSV field is text until the schema says otherwise: an id 00123 keeps its zeros.
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".parquet": pl.read_parquet,
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
}


def read_events(path: Path) -> list[Outcome]:
    """Return a file's events in time order.

    Raises:
        UsageError: no such file, an unknown ending, an unreadable file, or a row that is no outcome.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise UsageError(f"{path}: expected an existing file that ends in {', '.join(_READERS)}")
    try:
        table = reader(path)
    except PolarsError as error:
        raise UsageError(f"{path} does not read as {path.suffix}: {error}", evidence=path) from error
    table = table.with_columns(pl.col(name).cast(pl.String) for name in _IDS if name in table.columns)
    # A field left empty is a field left out, so its default counts.
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_dicts()]
    return sorted(parse_outcomes(rows), key=lambda event: event.event_time)
