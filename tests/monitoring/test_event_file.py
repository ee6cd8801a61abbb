"""Events from files: three formats, one meaning, all rows or none."""

from pathlib import Path

import polars as pl
import pytest

from monitoring.event_file import read_events
from sidrec.errors import UsageError
from sidrec.outcome import Outcome

ROWS = [
    {"event_id": "e2", "user_id": "00017", "item_id": "85048", "event_time": 1_288_600_100, "request_id": "r1"},
    {"event_id": "e1", "user_id": "00017", "item_id": "22041", "event_time": 1_288_600_000, "request_id": None},
]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_every_format_reads_the_same(tmp_path: Path, ending: str) -> None:
    """Ids keep their zeros, an empty request id is none, and events come in time order."""
    table, path = pl.DataFrame(ROWS), tmp_path / f"events{ending}"
    {".csv": table.write_csv, ".parquet": table.write_parquet, ".jsonl": table.write_ndjson}[ending](path)

    assert read_events(path) == [Outcome(**ROWS[1]), Outcome(**ROWS[0])]  # type: ignore[arg-type]


def test_numeric_ids_are_ids(tmp_path: Path) -> None:
    """A Parquet file with integer users and items holds the same ids as text."""
    path = tmp_path / "events.parquet"
    pl.DataFrame([{"event_id": 1, "user_id": 17850, "item_id": 85048, "event_time": 1_288_600_000}]).write_parquet(path)

    [event] = read_events(path)

    assert (event.event_id, event.user_id, event.item_id, event.event_type) == ("1", "17850", "85048", "purchase")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("events.txt", "", "expected an existing file"),
        ("missing.csv", None, "expected an existing file"),
        ("events.parquet", "no parquet", "does not read"),
        ("events.csv", "", "does not read"),
        ("events.csv", "event_id,user_id,item_id\ne1,u,i\n", "event_time"),
        ("events.csv", "event_id,user_id,item_id,event_time\ne1,u,i,yesterday\n", "event_time"),
    ],
)
def test_a_bad_file_is_a_usage_error(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    """What is wrong is named, and nothing is read in part."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)

    with pytest.raises(UsageError, match=message):
        read_events(path)
