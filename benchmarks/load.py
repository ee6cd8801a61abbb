"""Callers in a closed or an open loop, and who used the machine meanwhile.

Latency is wall time: what a caller waits for cannot be told in CPU time. So each load says what share of the machine
others used, and a row that others disturbed decides nothing.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.measure import Row

# A larger share of the machine in others' hands makes a wall time void.
MAX_OTHERS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_OPEN_CALLERS = 128


@dataclass(frozen=True)
class Load:
    """What callers met."""

    latencies_ms: tuple[float, ...]
    seconds: float
    server_cpu_s: float
    others: float
    """Share of all cores that processes other than ours and the servers' used."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Answers a CPU second of the servers; how busy the machine is hardly changes it."""
        return len(self.latencies_ms) / self.server_cpu_s

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies in ms: one that was met, not one in between."""
        return percentile(self.latencies_ms, percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


class Meter:
    """CPU time from its creation on: of the servers' process groups, and of everybody else."""

    def __init__(self, groups: Collection[int]) -> None:
        self._groups = set(groups)
        self._start = self._now()

    def read(self) -> tuple[float, float, float]:
        """Return seconds passed, CPU seconds of the servers, and the share of all cores that others used."""
        wall, busy, own, servers = (now - then for now, then in zip(self._now(), self._start, strict=True))
        # The counters tick apart: what is left of nothing may come out below it.
        others = max(0.0, busy - own - servers) / (wall * (os.cpu_count() or 1))
        return wall, servers, others

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), busy_s(), time.process_time(), sum(group_cpu_s(self._groups))


def busy_s() -> float:
    """Return the CPU seconds that all processes of the machine used since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def group_cpu_s(groups: Collection[int]) -> list[float]:
    """Return the CPU seconds of each process in some process groups."""
    seconds = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold spaces: fields are counted from behind it.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) in groups:
            seconds.append((int(fields[11]) + int(fields[12])) / _TICKS)
    return seconds


def closed_loop(ask: Callable[[int], None], *, callers: int, count: int, groups: Collection[int]) -> Load:
    """Return what `callers` met who each ask again as soon as they are answered, `count` requests in all."""
    numbers = iter(range(count))
    lock = threading.Lock()
    latencies: list[float] = []

    def call() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            started = time.perf_counter()
            ask(number)
            latencies.append((time.perf_counter() - started) * 1000)

    meter = Meter(groups)
    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(call) for _ in range(callers)]:
            done.result()
    return _load(latencies, meter)


def open_loop(ask: Callable[[int], None], *, rate: float, count: int, groups: Collection[int], seed: int = 0) -> Load:
    """Return what callers met who come at random times, `rate` a second, whether others were answered or not.

    A latency counts from when the caller came, so a server that falls behind cannot hide it.
    """
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, size=count)).tolist()
    latencies: list[float] = []

    def call(number: int, came: float) -> None:
        ask(number)
        latencies.append((time.perf_counter() - came) * 1000)

    meter = Meter(groups)
    begun = time.perf_counter()
    with ThreadPoolExecutor(_OPEN_CALLERS) as pool:
        asked = []
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, begun + arrival - time.perf_counter()))
            asked.append(pool.submit(call, number, begun + arrival))
        for done in asked:
            done.result()
    return _load(latencies, meter)


def undisturbed(row: Row, others: float) -> Row:
    """Return the row, without a verdict and saying why where others used too much of the machine."""
    used = f"others used {others:.0%} of the machine"
    if others <= MAX_OTHERS or row.met is None:
        return replace(row, notes=f"{row.notes}; {used}")
    return replace(row, met=None, notes=f"{row.notes}; void: {used}, at most {MAX_OTHERS:.0%} may be")


def _load(latencies: Sequence[float], meter: Meter) -> Load:
    wall, servers, others = meter.read()
    return Load(tuple(latencies), wall, servers, others)


class Sum:
    """Loads of several rounds, taken together."""

    def __init__(self) -> None:
        self.rounds: list[Load] = []

    def add(self, load: Load) -> Self:
        """Add a round."""
        self.rounds.append(load)
        return self

    @property
    def all(self) -> Load:
        """The rounds as one load; others' share is the largest of any round."""
        return Load(
            tuple(latency for one in self.rounds for latency in one.latencies_ms),
            sum(one.seconds for one in self.rounds),
            sum(one.server_cpu_s for one in self.rounds),
            max(one.others for one in self.rounds),
        )
