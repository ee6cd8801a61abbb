"""An event is recorded once, whole, and with what it said first."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sidrec.errors import CheckFailedError, UsageError
from sidrec.outcome import SCHEMA, Outcome, OutcomeLog, frame, parse_outcomes, read, segments


def _outcome(number: int, **changes: object) -> Outcome:
    values = {"event_id": f"e{number}", "user_id": "u", "item_id": f"i{number}", "event_time": 1_000 + number}
    return Outcome.model_validate(values | changes)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Every field survives, in the declared schema, by event time."""
    outcomes = [_outcome(2, request_id="r"), _outcome(1, event_type="view", user_id="é ✓")]

    OutcomeLog(tmp_path).append(outcomes)

    table = read(tmp_path)
    assert table.schema == SCHEMA
    assert table.to_dicts() == frame(outcomes[::-1]).to_dicts()


def test_an_event_sent_again_is_recorded_once(tmp_path: Path) -> None:
    """Within one call, in a later call and by another writer alike."""
    first = OutcomeLog(tmp_path).append([_outcome(1), _outcome(1), _outcome(2)])
    again = OutcomeLog(tmp_path).append([_outcome(2), _outcome(3)])

    assert (first.new, first.duplicates) == (2, 1)
    assert (again.new, again.duplicates) == (1, 1)
    assert read(tmp_path)["event_id"].to_list() == ["e1", "e2", "e3"]


def test_a_call_without_news_writes_no_segment(tmp_path: Path) -> None:
    """A retried request leaves no trace."""
    log = OutcomeLog(tmp_path)
    log.append([_outcome(1)])

    assert log.append([_outcome(1)]).segment is None
    assert len(segments(tmp_path)) == 1


def test_another_event_under_a_used_id_is_refused(tmp_path: Path) -> None:
    """It is neither dropped silently nor written, and neither are its neighbours."""
    log = OutcomeLog(tmp_path)
    log.append([_outcome(1)])

    with pytest.raises(UsageError, match="'e1' was recorded earlier with other values"):
        log.append([_outcome(2), _outcome(1, item_id="other")])
    assert read(tmp_path)["item_id"].to_list() == ["i1"]


@pytest.mark.parametrize("lost", ["index", "its last segment", "its pages"])
def test_index_is_made_good_from_the_segments(tmp_path: Path, lost: str) -> None:
    """A writer killed between segment and index, or a deleted or damaged index, makes no event new again."""
    log = OutcomeLog(tmp_path)
    log.append([_outcome(1)])
    shutil.copy(tmp_path / "index.db", tmp_path / "older")
    log.append([_outcome(2)])
    (tmp_path / "index.db").unlink()
    if lost == "its last segment":
        (tmp_path / "older").rename(tmp_path / "index.db")
    if lost == "its pages":
        (tmp_path / "index.db").write_bytes(b"damaged by a power cut" * 1000)

    appended = log.append([_outcome(1), _outcome(2)])

    assert (appended.new, appended.duplicates) == (0, 2)


def test_half_written_segments_are_not_read(tmp_path: Path) -> None:
    """What a killed writer left is invisible to readers and to the index."""
    log = OutcomeLog(tmp_path)
    segment = log.append([_outcome(1)]).segment
    assert segment is not None
    (segment.parent / ".2-1-000000.parquet.tmp").write_bytes(segment.read_bytes()[:50])

    assert read(tmp_path)["event_id"].to_list() == ["e1"]
    assert log.append([_outcome(2)]).new == 1


def test_segments_of_two_hosts_count_an_event_once(tmp_path: Path) -> None:
    """The first written row stands when folders are merged."""
    for host, item_id in (("1", "first"), ("2", "second")):
        (tmp_path / "2026-01-01").mkdir(exist_ok=True)
        frame([_outcome(1, item_id=item_id)]).write_parquet(tmp_path / "2026-01-01" / f"{host}.parquet")

    assert read(tmp_path)["item_id"].to_list() == ["first"]


def test_window_takes_its_start_and_not_its_end(tmp_path: Path) -> None:
    """Windows that touch count an event once."""
    OutcomeLog(tmp_path).append([_outcome(number) for number in range(5)])

    assert read(tmp_path, since=1_001, until=1_003)["event_id"].to_list() == ["e1", "e2"]


def test_many_small_segments_become_few(tmp_path: Path) -> None:
    """A year of single events is not a year of files; no event is lost, and each still counts once."""
    log = OutcomeLog(tmp_path)
    for number in range(300):
        log.append([_outcome(number)])

    assert len(segments(tmp_path)) < 100
    assert read(tmp_path)["event_id"].to_list() == [f"e{number}" for number in range(300)]
    assert log.append([_outcome(number) for number in range(300)]).new == 0


def test_no_outcomes_is_an_empty_table(tmp_path: Path) -> None:
    """The schema holds before the first event."""
    assert read(tmp_path / "absent").schema == SCHEMA


def test_segment_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    """A row that this code cannot understand is not guessed at."""
    segment = OutcomeLog(tmp_path).append([_outcome(1)]).segment
    assert segment is not None
    pl.read_parquet(segment).with_columns(schema_version=pl.lit(99, dtype=pl.Int32)).write_parquet(segment)

    with pytest.raises(CheckFailedError, match=r"schema version \[99\]"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": ""}, "user_id"),
        ({"item_id": None}, "item_id"),
        ({"event_id": "x" * 300}, "event_id"),
        ({"event_time": -1}, "event_time"),
        ({"event_time": 1_291_161_600_000}, "not milliseconds"),
        ({"event_time": time.time() + 10 * 86_400}, "event_time"),
        ({"price": 3}, "price"),
    ],
)
def test_bad_row_refuses_the_call_and_is_named(changes: dict[str, object], reason: str) -> None:
    """The message says which row and which field, so that it can be corrected and sent again."""
    good = {"event_id": "a", "user_id": "u", "item_id": "i", "event_time": 5}

    with pytest.raises(UsageError, match=rf"1 of 2 events are refused, none was written: row 1: .*{reason}"):
        parse_outcomes([good, good | {"event_id": "b"} | changes])


def test_two_events_of_one_call_cannot_share_an_id() -> None:
    """A sender that numbers its events wrongly learns so."""
    row = {"event_id": "a", "user_id": "u", "item_id": "i", "event_time": 5}

    with pytest.raises(UsageError, match="row 1: event_id 'a' is used by another row"):
        parse_outcomes([row, row | {"item_id": "j"}])


def test_two_processes_record_each_event_once(tmp_path: Path) -> None:
    """Writers that race over the same events lose none and repeat none."""
    code = (
        "import sys; from pathlib import Path; from sidrec.outcome import Outcome, OutcomeLog\n"
        "log = OutcomeLog(Path(sys.argv[1]))\n"
        "print(sum(log.append([Outcome(event_id=f'e{n}', user_id='u', item_id='i', event_time=5),"
        " Outcome(event_id=f'e{n + 1}', user_id='u', item_id='i', event_time=5)]).new for n in range(30)))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    new = [int(writer.communicate(timeout=60)[0]) for writer in writers]

    assert sum(new) == 31
    assert sorted(read(tmp_path)["event_id"].to_list()) == sorted(f"e{n}" for n in range(31))
