"""On a cluster the online store is Redis: the same reads and pushes, and old generations leave no keys."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from serving.events import push_events
from serving.history import HistoryReader
from sidrec.clock import day_start
from tests import feature_world as world

NOW = day_start(world.AS_OF)


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A real redis-server of this test alone, which SIDREC_ONLINE_STORE names."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on PATH: install Redis to run the cluster's online store here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([binary, "--port", str(port), "--save", "", "--dir", str(tmp_path)])
    client = redis.Redis(port=port)
    deadline = time.monotonic() + 30
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    monkeypatch.setenv("SIDREC_ONLINE_STORE", f"redis://127.0.0.1:{port}/0")
    client.close()
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait()


def test_histories_are_read_pushed_and_replaced(process: object, tmp_path: Path) -> None:
    """Read, push at the same second, push a late event, go back in time, and clean up."""
    rows = world.baskets().to_dicts()
    user = "user-003 é"
    world.make_store(tmp_path)
    reader = HistoryReader(max_age_days=100_000)
    assert reader.wait_open(60)

    def read(user_id: str) -> list[tuple[str, int]]:
        answer = reader.read([user_id], now=NOW, deadline_ms=20_000)[0]
        assert answer.status in ("fresh", "missing"), reader.last_error
        return list(zip(answer.item_ids, answer.times, strict=True))

    assert read(user) == world.history_by_hand(rows, user, world.AS_OF, world.CAP)
    for number, moment in enumerate((NOW + 5, NOW + 5, NOW + 1)):
        push_events([{"event_id": f"{number}", "user_id": "new", "item_id": f"i{number}", "event_time": moment}])
    assert read("new") == [("i2", NOW + 1), ("i0", NOW + 5), ("i1", NOW + 5)]

    for key in "bcd":
        world.make_store(tmp_path, key=key * 64, online_until="gate_start")
    assert read(user) == world.history_by_hand(rows, user, world.GATE_START, world.CAP)
    assert read("new") == []
    with redis.Redis(port=urlsplit(os.environ["SIDREC_ONLINE_STORE"]).port or 0) as client:
        projects = {key[key.rindex(b"sidrec_g") :] for key in client.scan_iter()}
    assert len(projects) == 2
    reader.close()


def test_a_redis_that_hangs_costs_the_deadline(process: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """Stopped, it is an error by the deadline; running again, it is read again."""
    world.make_store(tmp_path)
    reader = HistoryReader(max_age_days=100_000)
    assert reader.wait_open(60)
    process.send_signal(signal.SIGSTOP)

    started = time.monotonic()
    stalled = reader.read(["user-003 é"], now=NOW, deadline_ms=200)[0]
    waited = time.monotonic() - started
    process.send_signal(signal.SIGCONT)

    assert stalled.status == "error"
    assert waited < 2.0
    deadline = time.monotonic() + 60
    while reader.read(["user-003 é"], now=NOW, deadline_ms=5_000)[0].status != "fresh":
        assert time.monotonic() < deadline, reader.last_error
        time.sleep(0.05)
    reader.close()
