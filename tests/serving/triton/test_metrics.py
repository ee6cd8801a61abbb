"""The real /metrics page: what operators watch is there, and counts what happened."""

import re
import time
import urllib.request
from pathlib import Path

import pytest

from serving.triton.server import TritonServer, free_port
from sidrec.client import RecommendClient
from sidrec.errors import UsageError
from tests import feature_world
from tests.infra.test_prometheus import TRITON
from tests.serving.conftest import Live, publish, wait_answer
from tests.serving.world import make_bundle, make_revision

HAS_LABELS = re.compile(r"^(\w+)\{(.*)\} (\S+)$")


def scrape(server: TritonServer) -> dict[tuple[str, ...], float]:
    """Return every sample by name and labels, the revision's left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    samples = {}
    for line in lines:
        if found := HAS_LABELS.match(line):
            labels = [one for one in found[2].split(",") if not one.startswith("revision=")]
            samples[found[1], *sorted(labels)] = float(found[3])
    return samples


def wait_for(server: TritonServer, key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    """Return the page once a sample has a value; counts are published once a second."""
    deadline = time.monotonic() + 10
    while (page := scrape(server)).get(key) != value and time.monotonic() < deadline:
        time.sleep(0.1)
    return page


def test_beams_sources_refusals_and_rows_are_counted(live: Live) -> None:
    """Warm, cold, degraded and refused requests move their own counters by one each; a canary moves none."""
    time.sleep(2)  # what other tests asked is published by then
    before = scrape(live.server)
    user = {"user_id": "metrics"}
    arm = f'arm="{live.client.recommend(**user, context={"canary": True}).arm}"'
    late = {"sent_at_ms": int(time.time() * 1000) - 700, "deadline_ms": 1000}
    live.client.recommend(**user, history=["i1"])
    live.client.recommend(**user, history=["i1"], context=late)
    live.client.recommend(**user)
    with pytest.raises(UsageError):
        live.client.recommend(**user, k=0)

    invalid = ("sidrec_refusals_total", 'fault="caller"')
    after = wait_for(live.server, invalid, before.get(invalid, 0) + 1)

    def moved(name: str, *labels: str) -> float:
        key = (name, *sorted(labels))
        return after.get(key, 0) - before.get(key, 0)

    assert [moved("sidrec_answers_total", arm, f'source="{one}"') for one in ("model", "degraded", "cold")] == [1, 1, 1]
    assert moved(*invalid) == 1
    assert moved("sidrec_beams_total", arm) == 50 + 12
    assert moved("sidrec_valid_beams_total", arm) == 10 + 10  # a popularity model's beams are its K items
    assert after["sidrec_exposures_dropped", 'instance="recommend_0_0"'] == 0
    assert after["sidrec_exposures_buffered", 'instance="recommend_0_0"'] >= 0
    assert after["sidrec_intra_op_threads", 'instance="recommend_0_0"'] == 1
    assert {name for name, *_ in after} >= TRITON


def test_feature_reads_have_a_status_and_an_age(tmp_path: Path, own_state: Path) -> None:
    """Two instances and a real feature store: fresh and missing reads, the age of the fresh one, a thread each."""
    feature_world.make_store(tmp_path / "inputs")
    bundle = make_bundle(tmp_path / "made", item_id="item-{:02d}")
    publish(tmp_path / "repository", make_revision(1, bundle), bundle, instances=2)
    server = TritonServer(tmp_path / "repository", own_state, tmp_path / "log", free_port(), free_port())
    server.start()
    try:
        with RecommendClient(server.url, timeout_s=10) as client:
            wait_answer(server.running, client)
            assert client.recommend(user_id="user-000 é").source == "model"
            assert client.recommend(user_id="nobody").source == "cold"
        # The two may have been asked of different instances, which publish by clocks of their own.
        wait_for(server, ("sidrec_feature_reads_total", 'status="fresh"'), 1)
        page = wait_for(server, ("sidrec_feature_reads_total", 'status="missing"'), 1)
    finally:
        server.stop()

    assert page["sidrec_feature_reads_total", 'status="fresh"'] == 1
    assert page["sidrec_feature_age_seconds_count",] == 1
    assert 0 < page["sidrec_feature_age_seconds_sum",] < 400 * 86_400
    threads = {key: value for key, value in page.items() if key[0] == "sidrec_intra_op_threads"}
    assert threads == {("sidrec_intra_op_threads", f'instance="recommend_0_{n}"'): 1 for n in (0, 1)}
