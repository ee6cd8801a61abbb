"""Half an hour of traffic on a real Triton: latency and memory by the minute, and whether they climb.

`make soak` runs it. A slope is a straight line through the minutes, with its 95 % interval: memory that grows, or a
p99 that does, is a slope whose interval lies above zero. The first minute warms up and is left out.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Meter, percentile
from benchmarks.measure import machine
from benchmarks.serve_world import Doors, Shape, arguments, doors, requests
from sidrec.client import RecommendClient
from sidrec.data.catalog import Catalog
from sidrec.errors import ServingError
from sidrec.release.provenance import git_sha

_CALLERS = 4
_PAUSE_S = 0.05
_REQUESTS = 500


@dataclass(frozen=True)
class Minute:
    """What one minute was like."""

    answers: int
    failures: int
    p50_ms: float
    p99_ms: float
    resident_mb: float
    shared_mb: float
    others: float
    """Share of all cores that processes other than ours and the server used."""


@dataclass(frozen=True)
class Slope:
    """Change a minute, and the 95 % interval that it lies in."""

    per_minute: float
    low: float
    high: float


def soak(minutes: int, *, shape: Shape | None = None, minute_s: float = 60.0) -> dict[str, Any]:
    """Return each minute of a soak, and the slopes of p99 and of resident memory over all but the first."""
    with tempfile.TemporaryDirectory() as folder, doors(Path(folder), shape or Shape()) as open_doors:
        rows = _minutes(open_doors, minutes, minute_s)
    later = rows[1:]
    return {
        "machine": machine(),
        "commit": git_sha(),
        "minutes": [asdict(row) for row in rows],
        "p99_ms": asdict(slope([row.p99_ms for row in later])),
        "resident_mb": asdict(slope([row.resident_mb for row in later])),
        "failures": sum(row.failures for row in rows),
    }


def slope(values: Sequence[float]) -> Slope:
    """Return the least-squares slope of equally spaced values, with Student's 95 % interval.

    Raises:
        ValueError: there are fewer than three values.
    """
    if len(values) < 3:
        raise ValueError(f"a slope with an interval needs three values, seen {len(values)}")
    from scipy import stats

    fit = stats.linregress(range(len(values)), values)
    reach = float(stats.t.ppf(0.975, len(values) - 2)) * float(fit.stderr)
    return Slope(float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach)


def _minutes(open_doors: Doors, minutes: int, minute_s: float) -> list[Minute]:
    catalog = Catalog.read(open_doors.bundle.path("catalogue.parquet"))
    asked = requests(catalog, int(open_doors.bundle.decode["as_of_time"]), _REQUESTS, seed=0)
    stopping = threading.Event()
    latencies: list[float] = []
    failures: list[str] = []

    def call(caller: int) -> None:
        number = caller
        with RecommendClient(open_doors.server.url, retries=0, timeout_s=20.0) as client:
            while not stopping.is_set():
                started = time.perf_counter()
                try:
                    client.recommend(**arguments(asked[number % len(asked)]))
                    latencies.append((time.perf_counter() - started) * 1000)
                except ServingError as error:
                    failures.append(error.message)
                number += _CALLERS
                time.sleep(_PAUSE_S)

    rows = []
    with ThreadPoolExecutor(_CALLERS) as pool:
        calls = [pool.submit(call, caller) for caller in range(_CALLERS)]
        try:
            for _ in range(minutes):
                meter, first, failed = Meter(open_doors.groups), len(latencies), len(failures)
                time.sleep(minute_s)
                mine = latencies[first:]
                rows.append(
                    Minute(
                        answers=len(mine),
                        failures=len(failures) - failed,
                        p50_ms=round(percentile(mine, 50), 2),
                        p99_ms=round(percentile(mine, 99), 2),
                        resident_mb=round(_resident_mb(open_doors), 1),
                        shared_mb=round(_shared_mb(open_doors), 1),
                        others=round(meter.read()[2], 3),
                    )
                )
        finally:
            stopping.set()
        for done in calls:
            done.result()
    return rows


def _resident_mb(open_doors: Doors) -> float:
    assert open_doors.server.process is not None
    pids = {open_doors.server.process.pid} | open_doors.server.stubs()
    status = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def _shared_mb(open_doors: Doors) -> float:
    regions = Path("/dev/shm").glob(f"{open_doors.server.shm_prefix}*")
    return sum(region.stat().st_size for region in regions) / 2**20


def main() -> None:
    """Run a soak and print its report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=int, default=30)
    print(json.dumps(soak(parser.parse_args().minutes), indent=2))


if __name__ == "__main__":
    main()
