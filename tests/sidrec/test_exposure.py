"""The exposure log: whole segments, a bounded buffer, and no silent loss."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sidrec import exposure
from sidrec.exposure import Exposure, ExposureWriter


def row(number: int) -> Exposure:
    return Exposure(
        request_id=f"r{number}",
        user_id=None if number % 2 else f"u{number}",
        wall_time_ms=1_000 + number,
        event_time=number,
        arm="control",
        bundle_id="b-0123456789ab",
        revision=1,
        experiment=None,
        surface="test",
        k=2,
        exclude_seen=False,
        history_source="request",
        history_length=1,
        known_items=1,
        item_ids=["a", "é"],
        semantic_ids=[[1, 2, 3], [1, 2, -1]],
        scores=[-0.5, -1.0],
        source="model",
        feature_age_s=None,
        latency_ms=1.5,
        beam_width=50,
        valid_beams=50,
        group_size=1,
        stats=[{"name": "order_entropy", "value": 0.25}] if number % 2 else [],
    )


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    """Every column survives the segment, nested lists and nulls included."""
    writer = ExposureWriter(tmp_path, flush_s=60)
    rows = [row(n) for n in range(5)]
    for one in rows:
        writer.append(one)
    writer.close()

    assert exposure.read(tmp_path).to_dicts() == [
        {name: dataclasses.asdict(one)[name] for name in exposure.SCHEMA} for one in rows
    ]
    assert exposure.read(tmp_path).schema == exposure.SCHEMA


def test_the_row_class_and_the_schema_have_the_same_fields() -> None:
    """A field cannot be logged without a column, nor a column stay empty for ever."""
    assert {field.name for field in dataclasses.fields(Exposure)} == set(exposure.SCHEMA)


def test_a_full_buffer_drops_and_counts(tmp_path: Path) -> None:
    """Appended = written + buffered + dropped, before and after the flush."""
    writer = ExposureWriter(tmp_path, flush_s=60, max_rows=3)
    for number in range(5):
        writer.append(row(number))
    before = writer.stats()
    writer.close()
    after = writer.stats()

    assert (before.appended, before.written, before.buffered, before.dropped) == (5, 0, 3, 2)
    assert (after.appended, after.written, after.buffered, after.dropped) == (5, 3, 0, 2)


def test_the_interval_flushes_without_traffic(tmp_path: Path) -> None:
    """A lone row reaches the disk though no other row follows."""
    writer = ExposureWriter(tmp_path, flush_s=0.05)
    writer.append(row(0))
    deadline = time.monotonic() + 10
    while writer.stats().written == 0 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert exposure.read(tmp_path).height == 1
    writer.close()


def test_a_full_segment_flushes_before_the_interval(tmp_path: Path) -> None:
    """Size alone starts a segment."""
    writer = ExposureWriter(tmp_path, flush_s=3600, segment_rows=2)
    writer.append(row(0))
    writer.append(row(1))
    deadline = time.monotonic() + 10
    while writer.stats().written < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert writer.stats().segments == 1
    writer.close()


def test_rows_survive_a_segment_that_cannot_be_written(tmp_path: Path) -> None:
    """A disk fault keeps the rows for the next try, in order."""
    folder = tmp_path / "log"
    folder.write_text("in the way")
    writer = ExposureWriter(folder, flush_s=3600)
    writer.append(row(0))
    with pytest.raises(OSError, match="log"):
        writer.flush()
    assert writer.stats().buffered == 1

    folder.unlink()
    writer.append(row(1))
    writer.close()

    assert exposure.read(folder)["request_id"].to_list() == ["r0", "r1"]


def test_a_segment_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    """A full disk is not filled further by what it has no room for, and the thread lives on to try again."""
    script = f"""
import resource, signal, time
from pathlib import Path
from sidrec.exposure import ExposureWriter
from tests.sidrec.test_exposure import row
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
writer = ExposureWriter(Path({str(tmp_path)!r}), flush_s=0.02, max_rows=3)
for number in range(5):
    writer.append(row(number))
while writer.last_error is None:
    time.sleep(0.01)
left = [path.name for path in Path({str(tmp_path)!r}).rglob("*") if path.is_file()]
stats = writer.stats()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.close()
print(left, stats.buffered, stats.dropped, writer.stats().written)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )

    assert done.stdout.strip() == "[] 3 2 3", done.stderr


def test_writers_of_one_folder_and_one_process_number_keep_apart(tmp_path: Path) -> None:
    """Two servers, each process 1 of its container, flush in the same millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exposure.time, "time", lambda: 1_700_000_000.0)
        for number in range(2):
            writer = ExposureWriter(tmp_path)
            writer.append(row(number))
            writer.close()

    assert exposure.read(tmp_path)["request_id"].to_list() == ["r0", "r1"]


def test_a_reader_never_sees_a_half_written_segment(tmp_path: Path) -> None:
    """What a crash leaves is no segment."""
    day = tmp_path / "2024-01-01"
    day.mkdir()
    (day / ".1-1-000000.parquet.tmp").write_bytes(b"PAR1 half")

    assert exposure.read(tmp_path).is_empty()
    assert isinstance(exposure.read(tmp_path), pl.DataFrame)


def test_a_row_after_close_is_counted_as_dropped(tmp_path: Path) -> None:
    """Nothing vanishes, not even at shutdown."""
    writer = ExposureWriter(tmp_path)
    writer.close()
    writer.append(row(0))

    assert writer.stats().dropped == 1


@pytest.mark.parametrize("later", [["stats", "ranks", "propensities"], ["ranks", "propensities"]])
def test_rows_of_every_older_version_read_beside_the_newest(tmp_path: Path, later: list[str]) -> None:
    """Versions 1 and 2 lack what came after them; their rows read as rows without any."""
    (tmp_path / "day").mkdir()
    drawn = dataclasses.replace(row(0), ranks=[0, 3], propensities=[0.9, 0.25])
    exposure.frame([row(1)]).drop(later).write_parquet(tmp_path / "day" / "1-old.parquet")
    exposure.frame([drawn]).write_parquet(tmp_path / "day" / "2-new.parquet")
    read = exposure.read(tmp_path)

    assert read.schema == exposure.SCHEMA
    assert read.select("ranks", "propensities").rows() == [([0, 3], [0.9, 0.25]), (None, None)]
