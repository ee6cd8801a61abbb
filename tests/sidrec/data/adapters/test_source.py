"""Files are whole or refused, and times are read, never guessed."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from sidrec.data.adapters.source import SourceRefusedError, as_text, identifier, number, read_table, unix_seconds

TABLE = pl.DataFrame({"a": ["1", "2"], "b": ["x", None]})


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_whole_file_is_read_back(name: str, tmp_path: Path) -> None:
    """Parquet and CSV give the same table."""
    path = tmp_path / name
    TABLE.write_parquet(path) if name.endswith("parquet") else TABLE.write_csv(path)

    assert read_table(path).equals(TABLE)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.parquet", None, "there is no file"),
        ("zero.parquet", b"", "0 bytes"),
        ("zero.csv", b"", "0 bytes"),
        ("blank.csv", b"\n\n", "empty|no rows"),
        ("head.csv", b"a,b\n", "no rows"),
        ("text.parquet", b"this is no parquet file, only words", "not a whole Parquet file"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "not a well-formed CSV file"),
        ("latin.csv", b"a,b\n1,\xe9\n", "not a well-formed CSV file"),
        ("sheet.xlsx", b"PK", "none of .parquet, .csv"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    """Whatever is wrong with the file, rule `readable` says so in one line that names the file."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SourceRefusedError, match=says) as caught:
        read_table(path)

    assert caught.value.rule == "readable"
    assert "\n" not in caught.value.message
    assert caught.value.evidence == str(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_truncated_parquet_is_refused(keep: float, tmp_path: Path) -> None:
    """A Parquet cut anywhere is refused, not read in part."""
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    pl.DataFrame({"n": range(10_000)}).write_parquet(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * keep)])

    with pytest.raises(SourceRefusedError, match="not a whole Parquet file"):
        read_table(cut)


def test_a_parquet_with_a_damaged_page_is_refused(tmp_path: Path) -> None:
    """A whole footer over damaged data is refused too."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"n": [str(n) for n in range(10_000)]}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[60:400] = b"\0" * 340
    path.write_bytes(bytes(data))

    with pytest.raises(SourceRefusedError, match="not a whole Parquet file"):
        read_table(path)


NOON = int(datetime(2026, 1, 2, 12, 30, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["2026-01-02 12:30:00"], "s"),
        (["2026-01-02T12:30:00"], "s"),
        (["2026-01-02 12:30"], "s"),
        (["2026-01-02T12:30:00Z"], "s"),
        (["2026-01-02T14:30:00+02:00"], "s"),
        (["2026-01-02 12:30:00.250"], "s"),
        ([str(NOON)], "s"),
        ([NOON], "s"),
        ([float(NOON)], "s"),
        ([NOON * 1000], "ms"),
        ([str(NOON * 1_000_000)], "us"),
        ([datetime(2026, 1, 2, 12, 30)], "s"),
        ([datetime(2026, 1, 2, 12, 30, tzinfo=UTC)], "s"),
    ],
)
def test_times_become_unix_seconds(values: list[object], unit: str) -> None:
    """ISO text, zones, whole numbers of a stated unit and typed columns mean the same moment."""
    frame = pl.DataFrame({"t": values})

    assert frame.select(unix_seconds(pl.col("t"), frame["t"].dtype, unit))["t"].to_list() == [NOON]


def test_a_day_is_its_midnight_and_nonsense_is_null() -> None:
    """A date is read as midnight UTC; what is no time is null."""
    midnight = NOON // 86_400 * 86_400
    frame = pl.DataFrame({"t": ["2026-01-02", "B0001X", "", "02/01/2026", None]})

    assert frame.select(unix_seconds(pl.col("t"), frame["t"].dtype, "s"))["t"].to_list() == [midnight, *[None] * 4]


def test_identifiers_are_text() -> None:
    """Numbers, floats that a null made of numbers, and padded text are the same id."""
    for values in ([13085, None], [13085.0, None], [" 13085 ", "  "]):
        frame = pl.DataFrame({"id": values})
        assert frame.select(identifier(pl.col("id"), frame["id"].dtype))["id"].to_list() == ["13085", None]


def test_numbers_without_a_value_are_null() -> None:
    """NaN and words are no numbers."""
    frame = pl.DataFrame({"n": ["1.5", "NaN", "many", None]})

    assert frame.select(number(pl.col("n")))["n"].to_list() == [1.5, None, None, None]


def test_a_column_of_lists_is_refused_by_name() -> None:
    """A needed column that holds lists breaks the schema rule."""
    with pytest.raises(SourceRefusedError, match="schema: column 'a' holds List"):
        as_text(pl.DataFrame({"a": [[1]]}), ["a", "absent"], path=Path("x"))
