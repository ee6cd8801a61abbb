"""The packaged bundle in a real Triton server: it loads, answers by the rules, as offline, and in time.

What fails here is a failed gate in the verdict, not a failed step: the release owner reads all gates together.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import repository
from serving.triton.golden import check_wire
from serving.triton.server import TritonServer, free_port
from sidrec import files
from sidrec.bundle import Bundle, open_bundle
from sidrec.client import RecommendClient
from sidrec.clock import DAY_S
from sidrec.data.catalog import Catalog
from sidrec.errors import ServingError, SidrecError
from sidrec.evaluation.gates import GateResult
from sidrec.recipe import Recipe
from sidrec.recommender import Recommender, Request
from sidrec.release.revision import BundleRef, Revision, single_arm

SECTIONS = ("gates", "serving", "seed")

_REQUESTS = 200
_SECONDS = 20.0
_LEAST = 30
_PARITY = 20
_WARM_UP = 5
_START_S = 120.0
_K = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """What the server did."""

    loaded_s: float
    golden: int
    latencies_ms: list[float]
    different: list[str]


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/serving_check`: three gates, each with its number, its threshold and a sentence."""
    bundle = open_bundle(inputs["bundle"])
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        trial = _try(bundle, scratch, folder / "triton.log", recipe.seed)
        gates = judge(trial, recipe.gates.max_p99_ms)
    except SidrecError as error:
        gates = [_answers_gate(0, None, error.message)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report = {"bundle_id": bundle.bundle_id, "gates": [gate.model_dump(mode="json") for gate in gates]}
    files.write_json_atomic(folder / "serving_check", report)
    return {
        "bundle_id": bundle.bundle_id,
        "rows": max(gate.n for gate in gates),
        "gates": {gate.name: gate.result for gate in gates},
        "sentences": [gate.sentence for gate in gates],
    }


def _try(bundle: Bundle, scratch: Path, log: Path, seed: int) -> Trial:
    # The event clock, whatever the recipe's: offline and online must have the same now to be compared.
    revision = single_arm(1, bundle).model_copy(update={"clock": "event"})
    _publish(scratch / "repository", revision, bundle)
    log.unlink(missing_ok=True)
    server = TritonServer(scratch / "repository", scratch / "home", log, free_port(), free_port())
    started = time.monotonic()
    server.start()
    try:
        with RecommendClient(server.url, timeout_s=30.0, retries=0) as client:
            _wait(server, client)
            loaded_s = time.monotonic() - started
            recommender = Recommender.open(bundle.folder)
            catalog = recommender.catalog
            golden = check_wire(client.recommend, revision, lambda bundle_id: (catalog, recommender.as_of_time))
            requests = _requests(catalog, recommender.as_of_time, seed)
            different = [
                f"request {number}" for number in range(_PARITY) if not _equal(client, recommender, requests[number])
            ]
            return Trial(loaded_s, len(golden), _time(client, requests), different)
    finally:
        server.stop()


def _publish(root: Path, revision: Revision, bundle: Bundle) -> None:
    def export(ref: BundleRef, target: Path, verdict: Path) -> None:
        shutil.copytree(bundle.folder, target)

    # The verdict is what this step contributes to: no server of ours serves this scratch repository to anybody.
    repository.write_version(root, revision, export, lambda opened, verdict: None)
    repository.point_to(root, revision.revision)


def _wait(server: TritonServer, client: RecommendClient) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            client.recommend(k=1, context={"canary": True}, timeout_s=2.0)
            return
        except ServingError as error:
            if time.monotonic() > deadline or not server.running():
                raise ServingError(
                    f"the bundle does not load: {server.log_tail(1) or error.message}", evidence=server.log
                ) from error
            time.sleep(0.1)


def _requests(catalog: Catalog, as_of: int, seed: int) -> list[Request]:
    """Return made-up customers: a few baskets each, items drawn by popularity."""
    generator = np.random.default_rng(seed)
    share = catalog.popularity + 1.0
    requests = []
    for _ in range(_REQUESTS):
        ids: list[str] = []
        times: list[int] = []
        days = np.sort(generator.choice(np.arange(1, 300), size=generator.integers(1, 9), replace=False))[::-1]
        for day in days.tolist():
            size = min(int(generator.integers(1, 16)), len(catalog))
            rows = generator.choice(len(catalog), size=size, replace=False, p=share / share.sum())
            ids += [catalog.item_ids[row] for row in rows.tolist()]
            times += [as_of - day * DAY_S] * size
        requests.append(Request(tuple(ids), tuple(times), k=_K, now=as_of))
    return requests


def _arguments(request: Request) -> dict[str, Any]:
    return {"history": request.item_ids, "history_time": request.times, "k": request.k, "context": {"canary": True}}


def _equal(client: RecommendClient, recommender: Recommender, request: Request) -> bool:
    """Return whether the server gives the recommender's items, in order, with its scores."""
    online = client.recommend(**_arguments(request))
    offline = recommender.recommend([request])[0]
    return online.item_ids == offline.item_ids and np.allclose(online.scores, offline.scores, atol=1e-4)


def _time(client: RecommendClient, requests: list[Request]) -> list[float]:
    latencies: list[float] = []
    began = time.monotonic()
    for request in requests:
        started = time.perf_counter()
        client.recommend(**_arguments(request))
        latencies.append((time.perf_counter() - started) * 1000)
        if len(latencies) >= _LEAST + _WARM_UP and time.monotonic() - began > _SECONDS:
            break
    return latencies[_WARM_UP:]


def judge(trial: Trial, max_p99_ms: float) -> list[GateResult]:
    """Return the gates of a trial in which the server answered."""
    p50, p99 = (float(np.percentile(trial.latencies_ms, q)) for q in (50, 99))
    count = len(trial.latencies_ms)
    same = 1 - len(trial.different) / _PARITY
    return [
        _answers_gate(trial.golden, trial.loaded_s, None),
        GateResult(
            gate="serving",
            name="answers_as_offline",
            result="fail" if trial.different else "pass",
            threshold=1.0,
            observed=same,
            interval=None,
            n=_PARITY,
            sentence=(
                f"{_PARITY - len(trial.different)} of {_PARITY} answers over gRPC are the recommender's own"
                + (f"; {trial.different[0]} differs." if trial.different else ".")
            ),
        ),
        GateResult(
            gate="serving",
            name="p99_latency_ms",
            result="pass" if p99 <= max_p99_ms else "fail",
            threshold=max_p99_ms,
            observed=p99,
            interval=None,
            n=count,
            slices={"p50": p50, "max": max(trial.latencies_ms)},
            sentence=f"p99 is {p99:.1f} ms (p50 {p50:.1f} ms) over {count} lone requests, allowed {max_p99_ms:.0f} ms.",
        ),
    ]


def _answers_gate(golden: int, loaded_s: float | None, fault: str | None) -> GateResult:
    if loaded_s is None:
        sentence = f"The bundle does not serve: {fault}."
    else:
        sentence = (
            f"The bundle loaded in a real server in {loaded_s:.1f} s and answered {golden} golden requests right."
        )
    return GateResult(
        gate="serving",
        name="loads_and_answers",
        result="fail" if loaded_s is None else "pass",
        threshold=1.0,
        observed=0.0 if loaded_s is None else 1.0,
        interval=None,
        n=golden,
        sentence=sentence,
    )
