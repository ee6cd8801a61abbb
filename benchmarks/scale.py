"""How cost grows: time and peak memory of each step from 1e4 to 1e7 items and from 1e5 to 1e8 events.

Every step of every size runs in a process of its own, on inputs that another one made. An exponent is the slope of
log time over log size; where the last two sizes are further apart than that, their slope counts. A size that would not
fit into this machine's memory, by what the size before it took, is left out and says so.

`python -m benchmarks.scale --items 1e4 1e5 --events 1e5 1e6` measures other sizes.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Row, bounded, report, spread
from benchmarks.scale_steps import FAMILIES

ROOT = Path(__file__).parents[1]
# What a step's time may grow by, as an exponent of its size.
GOALS: dict[str, float | None] = {
    "ingest": 1.1,
    "ingest duckdb": 1.1,
    "validate": None,
    "validate duckdb": None,
    "sequences": 1.1,
    "sequences duckdb": 1.1,
    "histories written": 1.1,
    "training batch": 0.1,
    "codebook fit": 1.05,
    "codebook assign": 1.05,
    "trie build": 1.1,
    "serving step": 0.1,
}
_FITTING_SHARE = 0.8
_LONG = 2_000_000


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often; sizes above two million once."""

    items: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    events: tuple[int, ...] = (100_000, 1_000_000, 10_000_000, 100_000_000)
    families: tuple[str, ...] = tuple(FAMILIES)
    repeats: int = 3
    judged: bool = True


QUICK = Sizes((2_000, 4_000), (20_000, 40_000), repeats=1, judged=False)


@dataclass(frozen=True)
class Measured:
    """A step at one size; without times it was left out, and `notes` says why."""

    count: int
    seconds: list[float]
    added: int
    notes: str


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every step at every size, and then, step by step, the exponent and the bytes that each one more takes."""
    for family in sizes.families:
        thing = "events" if family in ("events", "histories") else "items"
        seen: dict[str, list[Measured]] = {step: [] for step in FAMILIES[family]}
        for count in sizes.events if thing == "events" else sizes.items:
            with tempfile.TemporaryDirectory(prefix="sidrec-scale-") as name:
                folder = Path(name)
                _child(family, "prepare", count, folder).check_returncode()
                for step, earlier in seen.items():
                    one = _measured(family, step, count, folder, sizes.repeats if count < _LONG else 1, earlier)
                    yield _row(f"{step}, {count:.0e} {thing}", one)
                    if one.seconds:
                        earlier.append(one)
        for step, measured in seen.items():
            if len(measured) > 1:
                yield _exponent(step, thing, measured, sizes)
                yield _bytes(step, thing, measured)


def _row(name: str, one: Measured) -> Row:
    if not one.seconds:
        return Row(name, None, None, None, None, None, 0.0, "s", one.notes)
    seconds = statistics.median(one.seconds)
    return bounded(name, seconds, goal=None, unit="s", notes=one.notes, spread=spread(one.seconds))


def _exponent(step: str, thing: str, seen: list[Measured], sizes: Sizes) -> Row:
    counts = np.log([one.count for one in seen])
    seconds = np.log([statistics.median(one.seconds) for one in seen])
    whole = float(np.polyfit(counts, seconds, 1)[0])
    last = float((seconds[-1] - seconds[-2]) / (counts[-1] - counts[-2]))
    goal = GOALS[step] if sizes.judged else None
    return bounded(
        f"exponent of time in {thing}, {step}",
        max(whole, last),
        goal=goal,
        unit="exponent",
        notes=f"{whole:.2f} over {len(seen)} sizes, {last:.2f} between the last two, the larger counts",
        spread=max(spread(one.seconds) for one in seen),
    )


def _bytes(step: str, thing: str, seen: list[Measured]) -> Row:
    first, last = seen[0], seen[-1]
    each = (last.added - first.added) / (last.count - first.count)
    growth = math.log(max(last.added, 1) / max(seen[-2].added, 1)) / math.log(last.count / seen[-2].count)
    return bounded(
        f"bytes of peak memory for each of the {thing}, {step}",
        max(each, 0.0),
        goal=None,
        unit=f"B/{thing[:-1]}",
        notes=f"from {first.count:.0e} to {last.count:.0e}; exponent of the last two sizes {growth:.2f}; "
        f"{last.added / 1e6:.0f} MB at the largest",
    )


def _measured(family: str, step: str, count: int, folder: Path, repeats: int, earlier: list[Measured]) -> Measured:
    free = _available()
    if earlier:
        expected = earlier[-1].added * count / earlier[-1].count
        if expected > _FITTING_SHARE * free:
            return Measured(count, [], 0, f"left out: about {expected / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free")
    costs = []
    for _ in range(repeats):
        done = _child(family, step, count, folder)
        if done.returncode:
            return Measured(count, [], 0, f"ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
        costs.append(json.loads(done.stdout.splitlines()[-1]))
    added = max(cost["added"] for cost in costs)
    wall = statistics.median(cost["wall"] for cost in costs)
    found = [f"{key} {value}" for key, value in costs[0].items() if key not in ("seconds", "wall", "added")]
    notes = [f"{added / 1e6:.1f} MB more at the peak", f"{wall:.3g} s of wall", *found]
    return Measured(count, [cost["seconds"] for cost in costs], added, "; ".join(notes))


def _child(family: str, step: str, count: int, folder: Path) -> "subprocess.CompletedProcess[str]":
    engine = "duckdb" if step.endswith("duckdb") else "polars"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_steps", family, step, str(count), str(folder)],
        cwd=ROOT,
        env={**os.environ, **threads, "SIDREC_DATA_ENGINE": engine},
        capture_output=True,
        text=True,
        check=False,
    )


def _available() -> int:
    """Return the bytes that a process may take without another one's going to disk."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024


def main() -> None:
    """Measure the sizes asked for and print the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", nargs="+", type=float, default=list(Sizes.items))
    parser.add_argument("--events", nargs="+", type=float, default=list(Sizes.events))
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--repeats", type=int, default=Sizes.repeats)
    asked = parser.parse_args()
    items, events = (tuple(int(count) for count in counts) for counts in (asked.items, asked.events))
    print(json.dumps(report(lambda: rows(Sizes(items, events, tuple(asked.families), asked.repeats))), indent=2))


if __name__ == "__main__":
    main()
