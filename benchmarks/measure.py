"""How a benchmark measures: ours and the peer in turn, in one process, on one thread; equal output before any time.

A time is the CPU time of this process, which other processes on the machine do not lengthen; a row holds its median.
"""

import contextlib
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from sidrec.errors import CheckFailedError
from sidrec.release.provenance import git_sha

Ours = TypeVar("Ours")
Peer = TypeVar("Peer")
Output = TypeVar("Output")

# Times of one side that differ by more than this share of their median decide nothing.
MAX_SPREAD = 0.25


@dataclass(frozen=True)
class Row:
    """One thing measured, with its goal and whether it is met; no goal where the sizes are too small to judge."""

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    goal: str | None
    met: bool | None
    spread: float
    unit: str
    notes: str
    gpu: float | None = None


def compare(
    name: str,
    ours: Callable[[], Ours],
    peer: Callable[[], Peer],
    *,
    check: Callable[[Ours, Peer], str],
    goal: float | None,
    repeats: int,
) -> Row:
    """Return the median CPU times of both and how many times as long the peer takes.

    Where the outputs are not equal there is no time: the row says why and misses its goal.

    Args:
        check: says in words how the two outputs agree, or raises CheckFailedError.
        goal: the ratio to reach.
        repeats: of each side, in turn; the outputs of the first are checked.
    """
    limit = None if goal is None else f">= {goal:g}"
    times: tuple[list[float], list[float]] = ([], [])
    notes = ""
    for _ in range(repeats):
        own_seconds, own = cpu_seconds(ours)
        other_seconds, other = cpu_seconds(peer)
        times[0].append(own_seconds)
        times[1].append(other_seconds)
        if not notes:
            try:
                notes = check(own, other)
            except CheckFailedError as unequal:
                met = None if goal is None else False
                return Row(name, None, None, None, limit, met, 0.0, "s", unequal.message)
        del own, other
    seconds, peer_seconds = (statistics.median(side) for side in times)
    ratio = peer_seconds / seconds
    return Row(
        name,
        ours=seconds,
        peer=peer_seconds,
        ratio=ratio,
        goal=limit,
        met=None if goal is None else ratio >= goal,
        spread=max(spread(side) for side in times),
        unit="s",
        notes=f"{notes}; {repeats} repeats",
    )


def bounded(name: str, value: float, *, goal: float | None, unit: str, notes: str, spread: float = 0.0) -> Row:
    """Return the row of a figure of ours alone, which is to be at most its goal."""
    limit, met = (None, None) if goal is None else (f"<= {goal:g}", value <= goal)
    return Row(name, value, None, None, limit, met, spread, unit, notes)


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """Leave alone what is in memory now: collections inside look at what is new, as often as they are asked for."""
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def cpu_seconds(call: Callable[[], Output]) -> tuple[float, Output]:
    """Return the CPU time of one call and what it returned; garbage of earlier ones is collected before it."""
    gc.collect()
    started = time.process_time()
    output = call()
    return time.process_time() - started, output


def spread(values: list[float]) -> float:
    """Return the distance between the quartiles as a share of the median; of fewer than four values their range."""
    if len(values) < 4:
        return (max(values) - min(values)) / statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def within(ours: float, peer: float, what: str, *, tolerance: float) -> str:
    """Return both values in words, once ours is not higher than the peer's by more than the tolerance.

    Raises:
        CheckFailedError: the outputs are not equal, so no time would mean anything.
    """
    difference = ours / peer - 1
    if difference > tolerance:
        raise CheckFailedError(
            f"{what}: ours {ours:.6g}, peer {peer:.6g}, {difference:+.2%}; a time counts at {tolerance:.2%} at most"
        )
    return f"{what} {ours:.6g} (peer {peer:.6g}, {difference:+.2%})"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch and every peer's thread pool to one thread inside."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def report(measure: Callable[[], Iterator[Row]]) -> dict[str, Any]:
    """Return what one run measured, on what machine, at which load and of which commit."""
    # Before the rows: a commit made meanwhile is not what runs.
    load, commit = os.getloadavg()[0], git_sha()
    with one_thread(), settled_heap():
        rows = [asdict(row) for row in measure()]
    for row in rows:
        if row["met"] is not None and row["spread"] > MAX_SPREAD:
            row["notes"] += f"; spread above {MAX_SPREAD:.0%}: run it again on a quieter machine"
    return {
        "machine": machine() | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)},
        "commit": commit,
        "results": rows,
    }


def machine() -> dict[str, Any]:
    """Return what a time depends on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "threads": 1,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if line.count(":") == 1)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return " ".join(named[key] for key in ("model name", "cpu family", "model") if key in named)
