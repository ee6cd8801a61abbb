"""On a cluster the online store is Redis: the same reads and pushes, and old generations leave no keys."""

import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
import redis

from serving.events import push_events
from serving.history import HistoryReader
from serving.triton.answering import Answerer, Served
from sidrec.clock import DAY_S, day_start
from sidrec.recommender import Recommender
from tests import feature_world as world
from tests.serving.triton.test_answering import request
from tests.serving.world import make_bundle, make_revision

NOW = day_start(world.AS_OF)
USERS = [f"user-{number:03d} é" for number in range(40)]
TTL_DAYS = 100_000


def client() -> "redis.Redis":
    """Return a client of the test's own server."""
    return redis.Redis(port=urlsplit(os.environ["SIDREC_ONLINE_STORE"]).port or 0)


def opened() -> HistoryReader:
    """Return a reader of the live store for which no history is too old."""
    reader = HistoryReader(max_age_days=TTL_DAYS)
    assert reader.wait_open(60)
    return reader


def answers_hash(reader: HistoryReader) -> str:
    """Return the SHA-256 of what the store answers for every user, and for nobody."""
    answers = reader.read([*USERS, "nobody"], now=NOW, deadline_ms=20_000)
    assert reader.last_error is None
    return hashlib.sha256(repr(answers).encode()).hexdigest()


def wait_said(caplog: pytest.LogCaptureFixture, what: str) -> str:
    """Return the one line of the log that says it: the client tries again for seconds before it gives up."""
    deadline = time.monotonic() + 60
    while not (said := [record.message for record in caplog.records if what in record.message]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = said
    return line


def push(number: int, user_id: str, item_id: str, time_: int) -> None:
    push_events([{"event_id": f"{number}", "user_id": user_id, "item_id": item_id, "event_time": time_}])


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A real redis-server of this test alone, which SIDREC_ONLINE_STORE names."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on PATH: apt-get install redis-server runs the cluster's online store here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([binary, "--port", str(port), "--save", "", "--dir", str(tmp_path)])
    monkeypatch.setenv("SIDREC_ONLINE_STORE", f"redis://127.0.0.1:{port}/0")
    deadline = time.monotonic() + 30
    with client() as asking:
        while True:
            try:
                asking.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait()


def test_redis_answers_as_sqlite_does(process: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same baskets, the same pushes, late ones among them: every history, age and status has one hash."""
    address = os.environ["SIDREC_ONLINE_STORE"]
    hashes = []
    for engine in ("sqlite", "redis"):
        monkeypatch.setenv("SIDREC_HOME", str(tmp_path / engine))
        monkeypatch.setenv("SIDREC_ONLINE_STORE", "" if engine == "sqlite" else address)
        world.make_store(tmp_path / f"{engine}-inputs")
        reader = opened()
        hashes.append([answers_hash(reader)])
        for number, moment in enumerate((NOW + 5, NOW + 5, NOW - 40 * DAY_S)):
            push(number, USERS[7], f"i{number}", moment)
        hashes[-1].append(answers_hash(reader))
        reader.close()

    assert hashes[0] == hashes[1]
    assert hashes[0][0] != hashes[0][1]


def test_histories_are_read_pushed_and_replaced(process: object, tmp_path: Path) -> None:
    """Read, push at the same second, push a late event, go back in time, and clean up."""
    rows = world.baskets().to_dicts()
    user = USERS[3]
    world.make_store(tmp_path)
    reader = opened()

    def read(user_id: str) -> list[tuple[str, int]]:
        answer = reader.read([user_id], now=NOW, deadline_ms=20_000)[0]
        assert answer.status in ("fresh", "missing"), reader.last_error
        return list(zip(answer.item_ids, answer.times, strict=True))

    assert read(user) == world.history_by_hand(rows, user, world.AS_OF, world.CAP)
    for number, moment in enumerate((NOW + 5, NOW + 5, NOW + 1)):
        push(number, "new", f"i{number}", moment)
    assert read("new") == [("i2", NOW + 1), ("i0", NOW + 5), ("i1", NOW + 5)]

    for key in "bcd":
        world.make_store(tmp_path, key=key * 64, online_until="gate_start")
    assert read(user) == world.history_by_hand(rows, user, world.GATE_START, world.CAP)
    assert read("new") == []
    with client() as asking:
        projects = {key[key.rindex(b"sidrec_g") :] for key in asking.scan_iter()}
    assert len(projects) == 2
    reader.close()


def test_rows_leave_redis_when_they_would_be_stale(process: object, tmp_path: Path) -> None:
    """Every key expires `max_age_days` after its last write, a pushed user's too; an expired user is missing."""
    world.make_store(tmp_path, max_age_days=30)
    push(1, "new", "i1", NOW)
    reader = opened()
    with client() as asking:
        lives = {key: asking.ttl(key) for key in asking.scan_iter()}
        (mine,) = (key for key in lives if USERS[3].encode() in key)
        asking.expire(mine, 0)

    assert len(lives) > len(USERS)
    assert all(30 * DAY_S - 120 < seconds <= 30 * DAY_S for seconds in lives.values())
    one, other = reader.read([USERS[3], "new"], now=NOW, deadline_ms=20_000)
    assert (one.status, other.status) == ("missing", "fresh")
    reader.close()


def test_a_purchase_is_in_the_next_recommendation_and_a_dead_redis_is_a_cold_one(
    process: "subprocess.Popen[bytes]", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown is cold, a purchase later the model answers; killed, it is cold by the deadline and one line says so."""
    caplog.set_level(logging.WARNING, logger="serving.history")
    world.make_store(tmp_path / "store")
    bundle = make_bundle(tmp_path / "bundle")
    reader = opened()
    recommenders = {bundle.bundle_id: Recommender.open(bundle.folder)}

    def ask(history_deadline_ms: int = 20_000) -> Served:
        revision = make_revision(1, bundle, history_deadline_ms=history_deadline_ms, deadline_ms=60_000)
        (served,) = Answerer(revision, recommenders, reader).answer([request(USER_ID="new")])
        assert isinstance(served, Served)
        return served

    assert (ask().answer.source, ask().history_source) == ("cold", "none")
    push(1, "new", "i1", NOW)
    assert (ask().answer.source, ask().history_source) == ("model", "store")

    process.kill()
    process.wait()
    started = time.monotonic()
    assert ask(200).answer.source == "cold"
    assert time.monotonic() - started < 2.0
    line = wait_said(caplog, "history_read_failed")
    assert "answers=cold until the store is back error=ConnectionError" in line
    reader.close()


def test_a_redis_that_hangs_costs_the_deadline(
    process: "subprocess.Popen[bytes]", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped, it is an error by the deadline; running again, it is read again, and the log says when."""
    caplog.set_level(logging.WARNING, logger="serving.history")
    world.make_store(tmp_path)
    reader = opened()
    process.send_signal(signal.SIGSTOP)

    started = time.monotonic()
    stalled = reader.read([USERS[3]], now=NOW, deadline_ms=200)[0]
    waited = time.monotonic() - started
    wait_said(caplog, "history_read_failed")
    process.send_signal(signal.SIGCONT)

    assert stalled.status == "error"
    assert waited < 2.0
    deadline = time.monotonic() + 60
    while reader.read([USERS[3]], now=NOW, deadline_ms=5_000)[0].status != "fresh":
        assert time.monotonic() < deadline, reader.last_error
        time.sleep(0.05)
    assert "after_s=" in wait_said(caplog, "history_read_recovered")
    reader.close()


@pytest.mark.slow
def test_a_hundred_thousand_users(process: object, tmp_path: Path) -> None:
    """Written by one run, read in batches of 500 and, a hundredth of them, pushed to: nobody is lost or mixed up."""
    count, size = 100_000, 500
    users = [f"u{number:06d}" for number in range(count)]
    baskets = pl.DataFrame(
        {
            "user_id": users,
            "day": [world.FIRST_DAY] * count,
            "time": [day_start(world.FIRST_DAY)] * count,
            "item_ids": [[f"item-{number % 30:02d}", f"own-{number}"] for number in range(count)],
        }
    )
    started = time.monotonic()
    world.make_store(tmp_path, baskets)
    written = time.monotonic() - started
    reader = opened()

    started = time.monotonic()
    for first in range(0, count, size):
        part = users[first : first + size]
        for place, answer in enumerate(reader.read(part, now=NOW, deadline_ms=60_000), start=first):
            assert answer.item_ids == (f"item-{place % 30:02d}", f"own-{place}"), reader.last_error
    read = time.monotonic() - started
    started = time.monotonic()
    push_events(
        [
            {"event_id": user, "user_id": user, "item_id": "fresh", "event_time": NOW + number}
            for number, user in enumerate(users[::100])
        ]
    )
    pushed = time.monotonic() - started
    fresh = reader.read(users[:size], now=NOW, deadline_ms=60_000)
    assert [answer.item_ids[-1] == "fresh" for answer in fresh] == [number % 100 == 0 for number in range(size)]
    with client() as asking:
        memory = int(asking.info("memory")["used_memory"])
    print(
        f"{count:,} users: written in {written:.1f} s, read in batches of {size} in {read:.1f} s, "
        f"{count // 100:,} pushed in {pushed:.1f} s, {memory / count:.0f} bytes a user in Redis"
    )
    reader.close()
