"""The whole job on real data: raw events to recommendations over gRPC and HTTP, and back to a drift report.

KFP's local runner, Great Expectations, Feast, BentoML's store, Triton and the gateway are the real ones.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = "pipelines/recipes/s2gr_debug.yaml"
SIDREC = str(Path(sys.executable).parent / "sidrec")

# A client that knows only the tensor table of the contract.
PLAIN_CLIENT = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
def ask(user="", history=()):
    tensors = {
        "USER_ID": np.array([[user]], dtype=object), "HISTORY": np.array([list(history)], dtype=object).reshape(1, -1),
        "HISTORY_TIME": np.zeros((1, 0), np.int64), "K": np.array([[10]], np.int32),
        "EXCLUDE_SEEN": np.array([[False]]), "CONTEXT": np.array([[""]], dtype=object),
    }
    types = {"USER_ID": "BYTES", "HISTORY": "BYTES", "HISTORY_TIME": "INT64", "K": "INT32", "EXCLUDE_SEEN": "BOOL",
             "CONTEXT": "BYTES"}
    inputs = []
    for name, value in tensors.items():
        inputs.append(triton.InferInput(name, list(value.shape), types[name]))
        inputs[-1].set_data_from_numpy(value)
    result = client.infer("recommend", inputs)
    text = lambda name: [value.decode() for value in result.as_numpy(name).ravel()]
    return {"items": text("ITEM_ID"), "source": text("SOURCE")[0], "bundle": text("BUNDLE_ID")[0],
            "scores": result.as_numpy("SCORE").ravel().tolist()}
print(json.dumps([ask(user=sys.argv[2]), ask(history=sys.argv[3].split(",")), ask(user="nobody-we-know")]))
"""

# Asks until its standard input says stop, then tells how each request ended.
TRAFFIC = """
import json, sys, threading
from collections import Counter
from sidrec.client import RecommendClient

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
bundles, failed = Counter(), []
with RecommendClient(sys.argv[1], timeout_s=20) as client:
    while not stop.wait(0.02):
        try:
            bundles[client.recommend(history=["85123A"], k=5).bundle_id] += 1
        except Exception as error:
            failed.append(str(error))
print(json.dumps({"bundles": bundles, "failed": failed}))
"""


@dataclass
class House:
    """One installation's state folder and its command line."""

    home: Path

    def call(self, *arguments: str, expect: int | tuple[int, ...] = 0) -> dict[str, Any]:
        """Return what a command prints with --json, after it left with an expected status."""
        expected = (expect,) if isinstance(expect, int) else expect
        done = subprocess.run(
            [SIDREC, *arguments, "--json"],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode in expected, (
            f"{arguments}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SIDREC_HOME": str(self.home)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house") / "home")


@pytest.fixture(scope="module")
def run(house: House) -> dict[str, Any]:
    """The first run of the debug recipe."""
    return house.call("run", "--recipe", RECIPE)


@pytest.fixture(scope="module")
def served(house: House, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The promoted bundle behind a real Triton and a real gateway."""
    house.call("promote", "--first", "--reason", "first bundle of the test")
    grpc, gateway = free_port(), free_port()
    house.call("serve", "--detach", "--grpc-port", str(grpc), "--gateway-port", str(gateway))
    yield {"grpc": f"127.0.0.1:{grpc}", "gateway": f"http://127.0.0.1:{gateway}", "bundle_id": run["bundle_id"]}
    house.call("stop")


def test_run_reports_every_step(run: dict[str, Any]) -> None:
    """A run ends with its steps, the verdict's sentence and the bundle's id."""
    assert next(step["step"] for step in run["steps"]) == "validate_events"
    assert len(run["steps"]) == 13
    assert run["result"] == "ok"
    assert run["bundle_id"].startswith("b-")
    assert run["sentence"]


def test_accounting_of_the_raw_file_is_exact(run: dict[str, Any]) -> None:
    """The faults of the raw file come out of the run with the counts of the protocol."""
    folder = Path(next(step["folder"] for step in run["steps"] if step["step"] == "validate_events"))
    accounting = json.loads((folder / "accounting").read_text())

    assert (accounting["rows_in"], accounting["kept"], accounting["sales"]) == (525_461, 393_636, 509_246)
    assert (accounting["quarantined"], accounting["merged"]) == (16_215, 12_661)


def test_second_run_is_a_no_op(house: House, run: dict[str, Any]) -> None:
    """The slot is done: a second call says so, within seconds, and changes nothing."""
    started = time.monotonic()
    again = house.call("run", "--recipe", RECIPE)

    assert again["already_done"]
    assert again["bundle_id"] == run["bundle_id"]
    assert time.monotonic() - started < 30


def test_killed_training_resumes_to_the_same_bundle(house: House, run: dict[str, Any], tmp_path: Path) -> None:
    """`kill -9` during training, run again: the same bundle id as the uninterrupted run, training resumed."""
    other = House(tmp_path / "home")
    process = subprocess.Popen(
        [SIDREC, "run", "--recipe", RECIPE, "--json"], cwd=ROOT, env=other.environment(), stdout=subprocess.DEVNULL
    )
    checkpoints = other.home / "steps" / "train_model"
    deadline = time.monotonic() + 300
    while not any(checkpoints.glob("*/checkpoint*/**/*.json")):
        assert process.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not any(checkpoints.glob("*/done.json"))

    resumed = other.call("run", "--recipe", RECIPE)

    assert "resumed at step" in Path(resumed["log"]).read_text()
    assert resumed["bundle_id"] == run["bundle_id"]


def test_plain_client_gets_ten_real_items(house: House, run: dict[str, Any], served: dict[str, Any]) -> None:
    """A client that knows only the tensor table gets ten distinct catalogue items for each kind of request."""
    import polars as pl

    baskets = pl.read_parquet(run["baskets"])
    user = baskets.filter(pl.col("time") < 1_288_000_000).sort("time")["user_id"][-1]
    catalogue = set(pl.read_parquet(Path(run["bundle"]) / "catalogue.parquet")["item_id"])
    history = ",".join(baskets["item_ids"][0][:3])
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_CLIENT, served["grpc"], user, history], capture_output=True, text=True, check=True
    )
    known, given, unknown = json.loads(done.stdout)

    for answer in (known, given, unknown):
        assert len(set(answer["items"])) == 10
        assert set(answer["items"]) <= catalogue
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert answer["bundle"] == served["bundle_id"]
    assert (known["source"], given["source"], unknown["source"]) == ("model", "model", "cold")


def test_gateway_answers_as_triton_does(run: dict[str, Any], served: dict[str, Any]) -> None:
    """The HTTP door gives the champion's answer as JSON."""
    body = json.dumps({"history": ["85123A", "22423"], "k": 5}).encode()
    request = urllib.request.Request(served["gateway"] + "/v1/recommend", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        answer = json.load(response)

    assert len({item["item_id"] for item in answer["items"]}) == 5
    assert answer["bundle_id"] == served["bundle_id"]


def test_replay_feeds_the_drift_report(house: House, served: dict[str, Any]) -> None:
    """Two replayed days of real customers become exposures, and the report is made from them."""
    replayed = house.call("replay", "--from", "2010-11-01", "--to", "2010-11-02")
    report = house.call("drift", "report", "--week", "2010-11-01", expect=3)

    assert replayed["errors"] == 0
    assert report["n"]["requests"] == replayed["requests"] > 50
    assert report["n"]["purchases"] > 1000


def test_status_names_champion_run_and_server(house: House, run: dict[str, Any], served: dict[str, Any]) -> None:
    """`status` says what is live, how the last run ended and that a server answers."""
    status = house.call("status")

    assert status["champion"]["bundle_id"] == run["bundle_id"]
    assert status["champion"]["system"] == "s2gr"
    assert status["champion"]["metrics"]["novel"]["ndcg@10"] > 0
    assert status["last_run"]["result"] == "ok"
    assert status["serving"]["state"] == "running"


def test_ledger_says_who_promoted_and_what_went_live(house: House, served: dict[str, Any]) -> None:
    """The chain holds, and its rows are the promotion and its going live."""
    house.call("ledger", "verify")
    rows = house.call("ledger", "show")["rows"]

    assert [row["action"] for row in rows] == ["promote", "live"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("codebook-collapse", "the least used level, 1, uses 6.2% of its codes"),
        ("collisions", "semantic IDs for 4,015 items before collisions were resolved: a rate of 0.7"),
        ("churn", "of the traffic has another semantic ID than in the live bundle"),
    ],
)
def test_a_broken_codebook_is_refused(house: House, served: dict[str, Any], fault: str, said: str) -> None:
    """Each fault stops the run at its gate, with the level or the number, before anything is trained."""
    error = house.call("run", "--recipe", RECIPE, "--break", fault, expect=1)

    assert said in error["message"]
    assert error["message"].startswith("train_codebook: Codebook gate")
    assert "train_codebook" in error["evidence"]


def test_a_refresh_with_nothing_new_carries_the_live_model(
    house: House, run: dict[str, Any], served: dict[str, Any]
) -> None:
    """The other pipeline decides `none`, carries codebook and weights, and its bundle answers as the live one does."""
    refreshed = house.call("run", "--recipe", RECIPE, "--pipeline", "codebook_refresh")
    steps = {step["step"]: step.get("summary", {}) for step in refreshed["steps"]}

    assert (steps["train_codebook"]["verb"], steps["train_codebook"]["churn"]) == ("none", 0.0)
    assert "nothing is new" in steps["train_codebook"]["reason"]
    assert steps["embed_items"]["frozen"]
    assert steps["train_model"]["training"] == "carry"
    assert refreshed["result"] == "ok"
    weights = (Path(run["bundle"]) / "weights.safetensors").read_bytes()
    assert (Path(refreshed["bundle"]) / "weights.safetensors").read_bytes() == weights
    explained = house.call("sid", "explain", "85123A")
    assert (
        explained["semantic_id"]
        == house.call("sid", "explain", "85123A", "--in", refreshed["bundle_id"])["semantic_id"]
    )
    assert house.call("sid", "diff", run["bundle_id"], refreshed["bundle_id"])["moved"]["items"] == 0


def test_promotion_and_rollback_fail_no_request(
    house: House, run: dict[str, Any], served: dict[str, Any], tmp_path: Path
) -> None:
    """Under steady traffic a person promotes a second bundle and rolls back; every request is answered."""
    recipe = tmp_path / "narrow.yaml"
    recipe.write_text((ROOT / RECIPE).read_text().replace("beam_width: 20", "beam_width: 15"))
    judged = house.call("run", "--recipe", str(recipe), expect=(0, 3))
    second = judged["bundle_id"]
    # A few hundred rows can rarely show non-inferiority; then it takes a second person.
    approval = ["--accept-inconclusive", "--second-approver", "release-owner"] if judged["result"] != "ok" else []
    traffic = subprocess.Popen(
        [sys.executable, "-c", TRAFFIC, served["grpc"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    house.call("promote", second, "--reason", "narrower beams", *approval)
    started = time.monotonic()
    house.call("rollback", "--reason", "the test wants the first bundle back")
    seconds = time.monotonic() - started
    out, _ = traffic.communicate("stop\n", timeout=60)
    seen = json.loads(out)

    assert second != run["bundle_id"]
    assert seen["failed"] == []
    assert set(seen["bundles"]) == {run["bundle_id"], second}
    assert house.call("status")["champion"]["bundle_id"] == run["bundle_id"]
    assert seconds < 60
    actions = [row["action"] for row in house.call("ledger", "show")["rows"]]
    assert actions == ["promote", "live", "promote", "live", "rollback", "live"]
