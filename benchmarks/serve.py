"""Serving: what the server adds to the engine, what batching gains, and the gateway beside it.

A real Triton and a real gateway on this machine; callers are threads of this process. Engine and server, and gRPC and
HTTP, are asked the same requests in turn. Every answer is compared with the engine's before a time counts.
"""

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Load, Meter, Sum, closed_loop, open_loop, percentile, undisturbed
from benchmarks.measure import Row, report, spread
from benchmarks.serve_world import Doors, Shape, arguments, doors, requests
from sidrec.client import RecommendClient
from sidrec.errors import CheckFailedError
from sidrec.recommender import Answer, Recommender, Request

MANY = 32
_TIMEOUT_S = 60.0
_TOLERANCE = 1e-4
_MAX_RATE = 100.0
_WARM_UP = 10
# The gateway closes a connection that nobody used for five seconds.
_IDLE_S = 2.0

Ask = Callable[[int], None]


@dataclass(frozen=True)
class Sizes:
    """How much is asked, of what."""

    shape: Shape = Shape()  # noqa: RUF009 - it is frozen
    rounds: int = 5
    alone: int = 60
    together: int = 480
    arriving: int = 600
    judged: bool = True


QUICK = Sizes(Shape(items=300, codes=16, dim=16, ff_dim=32, layers=1, users=16), 2, 8, 64, 40, judged=False)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: _rows(QUICK if quick else Sizes()))


@dataclass(frozen=True)
class Asked:
    """The requests, what the engine answers, and the three ways to ask."""

    engine: Recommender
    requests: list[Request]
    expected: list[Answer]
    client: RecommendClient
    doors: Doors

    def in_process(self, number: int) -> None:
        """Ask the engine."""
        self.engine.recommend([self.requests[number % len(self.requests)]])

    def over_grpc(self, number: int) -> None:
        """Ask the server."""
        row = number % len(self.requests)
        answer = self.client.recommend(**arguments(self.requests[row]), context={"canary": True})
        self._check(row, answer.item_ids, answer.scores, answer.source, "gRPC")

    def over_http(self, number: int) -> None:
        """Ask the gateway, over a connection that this thread keeps."""
        row = number % len(self.requests)
        connection = _connection(self.doors.gateway.host, self.doors.gateway.port)
        body = json.dumps(arguments(self.requests[row]))
        connection.request("POST", "/v1/recommend", body, {"content-type": "application/json"})
        response = connection.getresponse()
        said = json.loads(response.read())
        if response.status != 200:
            raise CheckFailedError(f"the gateway answered {response.status}: {said}")
        items = tuple(item["item_id"] for item in said["items"])
        self._check(row, items, np.array([item["score"] for item in said["items"]]), said["source"], "HTTP")

    def _check(self, row: int, items: tuple[str, ...], scores: Any, source: str, door: str) -> None:
        expected = self.expected[row]
        near = len(scores) == len(expected.scores) and np.allclose(scores, expected.scores, atol=_TOLERANCE)
        # Batched sums differ in their last digits: items whose scores tie within them may change places.
        if source != "model" or not near or (items != expected.item_ids and not _ties(items, expected)):
            raise CheckFailedError(
                f"request {row} over {door}: {items} ({source}), the engine says {expected.item_ids}"
            )


def _ties(items: tuple[str, ...], expected: Answer) -> bool:
    place = {item: score for item, score in zip(expected.item_ids, expected.scores.tolist(), strict=True)}
    last = min(place.values())
    return all(
        abs(place.get(item, last) - score) <= 2 * _TOLERANCE
        for item, score in zip(items, expected.scores.tolist(), strict=True)
    )


_threads = threading.local()


def _connection(host: str, port: int) -> http.client.HTTPConnection:
    if getattr(_threads, "port", None) != port:
        _threads.port, _threads.connection = port, http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    elif time.monotonic() - _threads.used > _IDLE_S:
        _threads.connection.close()  # it opens itself again
    _threads.used = time.monotonic()
    kept: http.client.HTTPConnection = _threads.connection
    return kept


def _rows(sizes: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, doors(Path(folder), sizes.shape) as world:
        engine = Recommender.open(world.bundle.folder)
        made = requests(engine.catalog, engine.as_of_time, 200, seed=1)
        expected = [engine.recommend([request])[0] for request in made]
        with RecommendClient(world.server.url, timeout_s=_TIMEOUT_S, retries=0) as client:
            asked = Asked(engine, made, expected, client, world)
            for ask in (asked.in_process, asked.over_grpc, asked.over_http):
                for number in range(_WARM_UP):
                    ask(number)
            yield from _measured(asked, sizes)


def _measured(asked: Asked, sizes: Sizes) -> Iterator[Row]:
    alone, together = Sum(), Sum()
    http_alone, http_together = Sum(), Sum()
    engine: list[list[float]] = []
    engine_cpu_s: list[float] = []
    for _ in range(sizes.rounds):
        own, own_cpu_s, servers, webs = _in_turn(asked, sizes.alone)
        engine.append(own)
        engine_cpu_s.append(own_cpu_s)
        alone.add(servers)
        http_alone.add(webs)
        groups = asked.doors.groups
        together.add(closed_loop(asked.over_grpc, callers=MANY, count=sizes.together, groups=groups[:1]))
        http_together.add(closed_loop(asked.over_http, callers=MANY, count=sizes.together, groups=groups))
    yield from _overhead(engine, engine_cpu_s, alone, sizes)
    yield from _batching(alone, together, sizes)
    yield _open(asked, together, sizes)
    yield from _gateway(alone, together, http_alone, http_together)


def _in_turn(asked: Asked, count: int) -> tuple[list[float], float, Load, Load]:
    """Return latencies of the engine in ms, its CPU time in s, and the loads of gRPC and HTTP, request by request."""
    own: list[float] = []
    own_cpu_s = 0.0
    doors_asked: tuple[Ask, ...] = (asked.over_grpc, asked.over_http)
    latencies: tuple[list[float], ...] = ([], [])
    meter = Meter(asked.doors.groups[:1])
    for number in range(count):
        cpu, started = time.process_time(), time.perf_counter()
        asked.in_process(number)
        own.append((time.perf_counter() - started) * 1000)
        own_cpu_s += time.process_time() - cpu
        for door, met in zip(doors_asked, latencies, strict=True):
            started = time.perf_counter()
            door(number)
            met.append((time.perf_counter() - started) * 1000)
    # The server answered each request twice, once a door.
    _, server_cpu_s, others = meter.read()
    grpc, web = (Load(tuple(met), sum(met) / 1000, server_cpu_s / 2, others) for met in latencies)
    return own, own_cpu_s, grpc, web


def _overhead(engine: list[list[float]], engine_cpu_s: list[float], alone: Sum, sizes: Sizes) -> Iterator[Row]:
    medians = [
        statistics.median(server - own for own, server in zip(owns, load.latencies_ms, strict=True))
        for owns, load in zip(engine, alone.rounds, strict=True)
    ]
    owns = [latency for one in engine for latency in one]
    for percent, goal in ((50, 1.0), (99, 3.0)):
        server, own = alone.all.percentile(percent), percentile(owns, percent)
        over = statistics.median(medians) if percent == 50 else server - own
        least = alone.all.percentile(10) - percentile(owns, 10)
        notes = f"server {server:.2f} ms, engine {own:.2f} ms, {len(owns)} requests in turn; {sizes.shape}"
        # The quickest tenth of either is what load disturbed least.
        notes += f"; p10 over p10 {least:.2f} ms" if percent == 50 else ""
        name = f"server over the engine, 1 caller, p{percent}"
        yield undisturbed(_at_most(name, over, goal, sizes, notes, _share(medians)), alone.all.others)
    over_ms = [
        (load.server_cpu_s / len(load.latencies_ms) - cpu_s / len(load.latencies_ms)) * 1000
        for load, cpu_s in zip(alone.rounds, engine_cpu_s, strict=True)
    ]
    per_request = sum(engine_cpu_s) / len(owns) * 1000
    notes = f"CPU time, which load hardly changes; engine {per_request:.2f} ms"
    yield Row(
        "server's CPU over the engine's, 1 caller, a request", statistics.median(over_ms), None, None, None, None,
        _share(over_ms), "ms", notes,
    )  # fmt: skip


def _batching(alone: Sum, together: Sum, sizes: Sizes) -> Iterator[Row]:
    one, many = alone.all, together.all
    gains = [batched.per_second / single.per_second for batched, single in _pairs(together, alone)]
    rates = [load.per_second for load in together.rounds]
    waits = f"p50 {many.percentile(50):.1f} ms, p99 {many.percentile(99):.1f} ms, {len(many.latencies_ms)} requests"
    yield undisturbed(
        _at_least(f"requests a second, {MANY} callers, 1 worker", rates, 150, sizes, waits, "/s"), many.others
    )
    notes = f"{one.per_second:.1f}/s alone, {many.per_second:.1f}/s together"
    yield undisturbed(
        _at_least(f"{MANY} callers over 1, requests a second", gains, 1.5, sizes, notes, "x"), many.others
    )
    cpu_gains = [batched.per_cpu_second / single.per_cpu_second for batched, single in _pairs(together, alone)]
    notes = f"CPU time, which load hardly changes; {one.per_cpu_second:.1f} alone, {many.per_cpu_second:.1f} together"
    yield _at_least(f"{MANY} callers over 1, requests a CPU second of the server", cpu_gains, 1.5, sizes, notes, "x")
    tails = [load.percentile(99) / load.percentile(50) for load in together.rounds]
    notes = "of each round, so that one stall counts once"
    yield undisturbed(
        _at_most(f"p99 over p50, {MANY} callers", statistics.median(tails), 3, sizes, notes, _share(tails), "x"),
        many.others,
    )


def _open(asked: Asked, together: Sum, sizes: Sizes) -> Row:
    rate = min(_MAX_RATE, together.all.per_second / 2)
    load = open_loop(asked.over_grpc, rate=rate, count=sizes.arriving, groups=asked.doors.groups[:1])
    notes = f"{rate:.0f}/s at random, half of what {MANY} callers get; p50 {load.percentile(50):.1f} ms; none lost"
    row = Row("open loop, p99", load.percentile(99), None, None, None, None, 0.0, "ms", notes)
    return undisturbed(row, load.others)


def _gateway(alone: Sum, together: Sum, http_alone: Sum, http_together: Sum) -> Iterator[Row]:
    for name, grpc, web, percent in (
        ("gateway over gRPC, 1 caller, p50", alone, http_alone, 50),
        ("gateway over gRPC, 1 caller, p99", alone, http_alone, 99),
        (f"gateway over gRPC, {MANY} callers, p50", together, http_together, 50),
    ):
        both = [(load.percentile(percent), other.percentile(percent)) for load, other in _pairs(web, grpc)]
        over = web.all.percentile(percent) - grpc.all.percentile(percent)
        notes = f"HTTP {web.all.percentile(percent):.2f} ms, gRPC {grpc.all.percentile(percent):.2f} ms"
        row = Row(name, over, None, None, None, None, _share([ours for ours, _ in both]), "ms", notes)
        yield undisturbed(row, web.all.others)
    ours, peer = http_together.all.per_second, together.all.per_second
    rates = [load.per_second for load in http_together.rounds]
    row = Row(f"requests a second through the gateway, {MANY} callers", ours, peer, ours / peer, None, None,
              _share(rates), "/s", "peer: gRPC; one gateway worker")  # fmt: skip
    yield undisturbed(row, http_together.all.others)


def _pairs(ours: Sum, other: Sum) -> list[tuple[Load, Load]]:
    return list(zip(ours.rounds, other.rounds, strict=True))


def _share(values: list[float]) -> float:
    return abs(spread(values))


def _at_most(name: str, value: float, goal: float, sizes: Sizes, notes: str, spread_: float, unit: str = "ms") -> Row:
    limit, met = (f"<= {goal:g}", value <= goal) if sizes.judged else (None, None)
    return Row(name, value, None, None, limit, met, spread_, unit, notes)


def _at_least(name: str, values: list[float], goal: float, sizes: Sizes, notes: str, unit: str) -> Row:
    value = statistics.median(values)
    limit, met = (f">= {goal:g}", value >= goal) if sizes.judged else (None, None)
    return Row(name, value, None, None, limit, met, _share(values), unit, notes)
