"""Recovery: from the kill of the Python stub, or of the server, to the first good answer for a stored user.

A real Triton with a small S²GR bundle and a feature store on disk, kept by the supervisor that `sidrec serve` runs.
A good answer is the one that the user got before: from the model, by the history in the store, so a server that
answers before its store is open does not count as recovered.
"""

import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.load import busy_s, group_cpu_s, undisturbed
from benchmarks.measure import Row, bounded, report, spread
from benchmarks.serve_world import Shape, make_bundle
from feature_repo.push import push_fresh
from feature_repo.store import StoreState, go_live, new_generation, open_store, write_state
from serving.front import kept
from serving.supervisor import Supervisor
from serving.triton import repository
from serving.triton.server import free_port
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.client import Recommendation, RecommendClient
from sidrec.clock import DAY_S
from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError, ServingError
from sidrec.release.revision import BundleRef, single_arm

GOAL_S = 7.0
_USER = "u0"
_CEILING_S = 120.0
_SETTLE_S = 1.0
SMALL = Shape(items=300, codes=16, dim=16, ff_dim=32, layers=1, users=16)


@dataclass(frozen=True)
class Recovery:
    """How one kill went."""

    seconds: float
    start_cpu_s: float
    others: float
    """Share of all cores that processes other than ours and the servers used."""


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of both kills; quick makes one of each and judges nothing."""
    return report(lambda: _rows(Shape() if not quick else SMALL, 1 if quick else 7, judged=not quick))


def _rows(shape: Shape, repeats: int, *, judged: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"SIDREC_HOME": f"{name}/home"}):
        _publish(make_bundle(Path(name), shape))
        supervisor = Supervisor(grpc_port=free_port())
        with kept(supervisor, threading.Event()) as wait:
            wait()
            with RecommendClient(supervisor.server.url, retries=0, timeout_s=5.0) as client:
                before = client.recommend(user_id=_USER)
                if before.source != "model":
                    raise CheckFailedError(f"the stored user's answer is {before.source}, expected model")
                for victim, pid_of in (("stub", _stub), ("server", _server)):
                    found = [_recover(supervisor, client, pid_of, before) for _ in range(repeats)]
                    yield _row(victim, found, shape, judged=judged)


def _recover(
    supervisor: Supervisor, client: RecommendClient, pid_of: Callable[[Supervisor], int], before: Recommendation
) -> Recovery:
    time.sleep(_SETTLE_S)
    busy, own, started = busy_s(), time.process_time(), time.monotonic()
    os.kill(pid_of(supervisor), signal.SIGKILL)
    while True:
        try:
            answer = client.recommend(user_id=_USER)
        except ServingError as error:
            if time.monotonic() - started > _CEILING_S:
                raise CheckFailedError(f"no answer {_CEILING_S:.0f} s after a kill: {error.message}") from error
            time.sleep(0.02)
            continue
        break
    seconds = time.monotonic() - started
    if (answer.item_ids, answer.source) != (before.item_ids, before.source):
        raise CheckFailedError(f"after a kill the answer is another one ({answer.source})")
    cpu = sum(group_cpu_s({_server(supervisor)}))
    others = max(0.0, busy_s() - busy - (time.process_time() - own) - cpu) / (seconds * (os.cpu_count() or 1))
    return Recovery(seconds, cpu, others)


def _row(victim: str, found: list[Recovery], shape: Shape, *, judged: bool) -> Row:
    seconds = [one.seconds for one in found]
    others = statistics.median(one.others for one in found)
    cpu = statistics.median(one.start_cpu_s for one in found)
    row = bounded(
        f"recover, {victim} killed",
        statistics.median(seconds),
        goal=GOAL_S if judged else None,
        unit="s",
        notes=f"{shape}; {len(found)} kills; the start takes {cpu:.2f} s of CPU time",
        spread=spread(seconds),
    )
    return undisturbed(row, others)


def _publish(bundle: Bundle) -> None:
    """Make the bundle revision 1 of this SIDREC_HOME, and give it a feature store that knows one user."""
    catalog = Catalog.read(bundle.path("catalogue.parquet"))
    as_of = int(bundle.decode["as_of_time"])
    revision = single_arm(1, bundle).model_copy(update={"clock": "event"})

    def export(ref: BundleRef, target: Path, verdict: Path) -> None:
        shutil.copytree(bundle.folder, target)

    repository.write_version(home.triton_repository_dir(), revision, export, lambda opened, verdict: None)
    repository.point_to(home.triton_repository_dir(), revision.revision)
    generation = new_generation("b" * 64)
    events = [(_USER, item, as_of - DAY_S * back) for back, item in enumerate(catalog.item_ids[:8], start=1)]
    push_fresh(open_store(generation), events, history_cap=64)
    write_state(generation, StoreState(key="b" * 64, cut=as_of, history_cap=64, max_age_days=400, users=1))
    go_live(generation)


def _stub(supervisor: Supervisor) -> int:
    [pid, *_] = sorted(supervisor.server.stubs())
    return pid


def _server(supervisor: Supervisor) -> int:
    process = supervisor.server.process
    if process is None:
        raise ServingError("no server runs")
    return process.pid
