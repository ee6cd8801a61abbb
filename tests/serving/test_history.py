"""Histories come from the live store by a deadline; what cannot be known is said, not guessed."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from feature_repo.store import live_folder
from serving.events import push_events
from serving.history import HistoryReader, StoredHistory
from sidrec import home
from sidrec.clock import DAY_S, day_start
from sidrec.errors import UsageError
from tests import feature_world as world

NOW = day_start(world.AS_OF)
USERS = [f"user-{number:03d} é" for number in range(40)]
PATIENT_MS = 20_000.0


@pytest.fixture(scope="module")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a materialised store in it, made once."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDREC_HOME", str(folder))
        world.make_store(folder / "inputs")
    return folder


@pytest.fixture
def store_home(built_home: Path, own_state: Path) -> Path:
    """A copy of the built state folder that a test may change."""
    shutil.copytree(built_home, own_state, symlinks=True)
    return own_state


@pytest.fixture
def reader(store_home: Path) -> Iterator[HistoryReader]:
    reader = HistoryReader()
    assert reader.wait_open(60)
    yield reader
    reader.close()


def _newest(user_id: str) -> int:
    return int(world.baskets().filter(pl.col("user_id") == user_id)["time"].max())  # type: ignore[arg-type]


def test_history_is_what_the_baskets_say(reader: HistoryReader) -> None:
    """Every user's items, times and age are those of a loop over its baskets."""
    rows = world.baskets().to_dicts()

    answers = reader.read(USERS, now=NOW, deadline_ms=PATIENT_MS)

    for user_id, answer in zip(USERS, answers, strict=True):
        history = world.history_by_hand(rows, user_id, world.AS_OF, world.CAP)
        assert list(zip(answer.item_ids, answer.times, strict=True)) == history
        assert (answer.status, answer.age_s) == ("fresh", NOW - history[-1][1])


def test_answers_are_in_the_order_of_the_users(reader: HistoryReader) -> None:
    """A user asked twice, an unknown one and an absent one keep their places."""
    asked = [USERS[3], "nobody", USERS[1], "", USERS[3]]

    answers = reader.read(asked, now=NOW, deadline_ms=PATIENT_MS)

    assert [answer.status for answer in answers] == ["fresh", "missing", "fresh", "missing", "fresh"]
    assert answers[0] == answers[4] != answers[2]
    assert answers[1] == StoredHistory((), (), None, "missing")


def test_nobody_asked_is_nobody_answered(reader: HistoryReader) -> None:
    """An empty batch is no error."""
    assert reader.read([], now=NOW, deadline_ms=PATIENT_MS) == []


def test_history_is_stale_beyond_its_age_and_not_at_it(store_home: Path) -> None:
    """A stale history has an age and no items, so nobody recommends from it by mistake."""
    reader = HistoryReader(max_age_days=10)
    reader.wait_open(60)
    limit = _newest(USERS[0]) + 10 * DAY_S

    at, beyond = reader.read([USERS[0]] * 2, now=[limit, limit + 1], deadline_ms=PATIENT_MS)
    reader.close()

    assert (at.status, at.age_s) == ("fresh", 10 * DAY_S)
    assert beyond == StoredHistory((), (), 10 * DAY_S + 1, "stale")


def test_events_after_a_replayed_request_are_hidden(reader: HistoryReader) -> None:
    """Each request of a batch sees its own past; one before the first event sees nothing."""
    whole = reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0]
    middle = sorted(set(whole.times))[0]

    past, before, at_all = reader.read(
        [USERS[0]] * 3, now=NOW, deadline_ms=PATIENT_MS, until=[middle, min(whole.times) - 1, None]
    )

    assert past.times == tuple(time for time in whole.times if time <= middle)
    assert past.item_ids == whole.item_ids[: len(past.times)]
    assert before.status == "missing"
    assert at_all == whole


def test_times_must_be_one_a_user(reader: HistoryReader) -> None:
    """A caller that mixes up its batch is told so."""
    with pytest.raises(UsageError, match="3 users need as many times, seen 2 and 3"):
        reader.read(USERS[:3], now=[NOW, NOW], deadline_ms=PATIENT_MS)


def test_no_store_is_an_error_until_there_is_one(built_home: Path, own_state: Path) -> None:
    """A server that starts before the first run begins to answer when the store appears."""
    reader = HistoryReader()
    assert reader.wait_open(60)
    assert reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0].status == "error"
    assert "no feature store" in str(reader.last_error)

    shutil.copytree(built_home, own_state, symlinks=True)
    time.sleep(1.1)

    assert reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0].status == "fresh"
    assert reader.last_error is None
    reader.close()


def test_a_stalled_store_costs_the_deadline_and_then_nothing(store_home: Path) -> None:
    """The first read waits for its deadline, later ones do not wait, and reads work again when the store does."""
    database = live_folder(home.feast_dir()) / "online.db"
    with closing(sqlite3.connect(database)) as setting:
        # A rollback journal lets a writer shut readers out, which the write-ahead log never does.
        assert setting.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    reader = HistoryReader()
    assert reader.wait_open(60)
    assert reader.last_error is None
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        waits = []
        for _ in range(3):
            started = time.monotonic()
            answer = reader.read([USERS[0]], now=NOW, deadline_ms=300.0)[0]
            waits.append(time.monotonic() - started)
            assert answer == StoredHistory((), (), None, "error")
        writer.rollback()

    assert 0.3 <= waits[0] < 2.0
    assert max(waits[1:]) < 0.1
    deadline = time.monotonic() + 60
    while (answer := reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0]).status != "fresh":
        assert time.monotonic() < deadline, reader.last_error
        time.sleep(0.05)
    reader.close()


def test_a_broken_store_is_an_error_and_no_exception(store_home: Path) -> None:
    """A damaged file is an answer too: the caller serves popular items."""
    for path in (live_folder(home.feast_dir())).glob("online.db*"):
        path.write_bytes(b"not a database" * 100)
    reader = HistoryReader()
    reader.wait_open(60)

    assert reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0].status == "error"
    assert "DatabaseError" in str(reader.last_error)
    reader.close()


def test_a_new_generation_is_followed_without_a_restart(reader: HistoryReader, tmp_path: Path) -> None:
    """After another run made its store live, the next read is from that one."""
    before = reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0]
    baskets = world.baskets().with_columns(item_ids=pl.col("item_ids").list.eval("new-" + pl.element()))

    world.make_store(tmp_path / "inputs", baskets, key="b" * 64)

    after = reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0]
    assert after.item_ids == tuple(f"new-{item_id}" for item_id in before.item_ids)


def test_reads_go_on_while_events_are_pushed(reader: HistoryReader) -> None:
    """A writer neither blocks nor breaks a reader: no error in hundreds of reads."""
    stop = threading.Event()

    def write() -> None:
        for number in range(20):
            push_events(
                [{"event_id": f"e{number}", "user_id": USERS[number], "item_id": "fresh", "event_time": NOW + number}]
            )
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    statuses = []
    while not stop.is_set():
        statuses += [answer.status for answer in reader.read(USERS, now=NOW, deadline_ms=PATIENT_MS)]
    writer.join()

    assert set(statuses) == {"fresh"}
    assert len(statuses) > 100


def test_reading_needs_no_particular_working_folder(
    store_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was moved with its state folder, read from elsewhere, answers the same."""
    moved = tmp_path / "moved"
    store_home.rename(moved)
    monkeypatch.setenv("SIDREC_HOME", str(moved))
    monkeypatch.chdir("/")
    reader = HistoryReader()
    reader.wait_open(60)

    assert reader.read([USERS[0]], now=NOW, deadline_ms=PATIENT_MS)[0].status == "fresh", reader.last_error
    reader.close()


def test_tritons_interpreter_reads_the_same(reader: HistoryReader, project_root: Path, own_state: Path) -> None:
    """Under the stub's numpy 1.26 every history is the one that this interpreter reads."""
    stub = Path(sys.prefix) / "triton" / "stub" / "bin" / "python"
    code = (
        "import dataclasses, json, sys, numpy\n"
        "from serving.history import HistoryReader\n"
        "reader = HistoryReader(); assert reader.wait_open(120)\n"
        "asked = json.loads(sys.argv[1])\n"
        "answers = reader.read(asked, now=int(sys.argv[2]), deadline_ms=20000)\n"
        "print(json.dumps([numpy.__version__, [dataclasses.astuple(one) for one in answers]]))"
    )
    asked = [*USERS, "nobody"]

    shown = subprocess.run(
        [str(stub), "-c", code, json.dumps(asked), str(NOW)],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "SIDREC_HOME": os.environ["SIDREC_HOME"]},
    ).stdout

    version, answers = json.loads(shown.splitlines()[-1])
    assert version.startswith("1.26")
    ours = reader.read(asked, now=NOW, deadline_ms=PATIENT_MS)
    assert [StoredHistory(tuple(i), tuple(t), age, status) for i, t, age, status in answers] == ours
