"""One request by each system, through a real Triton: what more slots, paths in any order and a language model cost.

Every system has a bundle of as many items, of the same width, layers and beams, and a server of its own. They are asked
the same customers in turn, one caller at a time, and every answer is compared with the engine's.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.load import Meter, percentile, undisturbed
from benchmarks.measure import Row, report, spread
from benchmarks.serve import Asked
from benchmarks.serve_world import Shape, doors, requests
from sidrec.client import RecommendClient
from sidrec.recommender import Recommender

_TIMEOUT_S = 60.0
_WARM_UP = 10


@dataclass(frozen=True)
class Sizes:
    """How much is asked, of what; the first is what the others are compared with."""

    shapes: tuple[tuple[str, Shape], ...]
    rounds: int = 5
    alone: int = 100


_OF = Shape()
FULL = Sizes(
    (
        ("S²GR, 3 levels", _OF),
        ("REG4Rec, 4 slots", replace(_OF, kind="reg4rec", levels=4)),
        ("REG4Rec, 8 slots", replace(_OF, kind="reg4rec", levels=8)),
        ("SIDReasoner, direct, 3 levels", replace(_OF, kind="sidreasoner")),
    )
)
_SMALL = Shape(items=300, codes=16, dim=16, ff_dim=32, layers=1, users=16)
QUICK = Sizes(
    (
        ("S²GR, 3 levels", _SMALL),
        ("REG4Rec, 4 slots", replace(_SMALL, kind="reg4rec", levels=4)),
        ("SIDReasoner, direct, 3 levels", replace(_SMALL, kind="sidreasoner")),
    ),
    rounds=2,
    alone=8,
)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; none has a goal."""
    return report(lambda: _rows(QUICK if quick else FULL))


def _rows(sizes: Sizes) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        asked = {name: _asked(stack, shape) for name, shape in sizes.shapes}
        for own in asked.values():
            for number in range(_WARM_UP):
                own.in_process(number)
                own.over_grpc(number)
        meter = Meter([group for own in asked.values() for group in own.doors.groups])
        engine: dict[str, list[list[float]]] = {name: [] for name in asked}
        server: dict[str, list[list[float]]] = {name: [] for name in asked}
        for _ in range(sizes.rounds):
            for name in asked:
                engine[name].append([])
                server[name].append([])
            for number in range(sizes.alone):
                for name, own in asked.items():
                    engine[name][-1].append(_ms(own.in_process, number))
                    server[name][-1].append(_ms(own.over_grpc, number))
        _, _, others = meter.read()
    base = next(iter(asked))
    for name, shape in sizes.shapes:
        for percent in (50, 99):
            row = _row(name, shape, percent, server[name], server[base], engine[name])
            yield undisturbed(row, others)


def _row(
    name: str,
    shape: Shape,
    percent: int,
    server: list[list[float]],
    base: list[list[float]],
    engine: list[list[float]],
) -> Row:
    ours, peer = (percentile([ms for one in rounds for ms in one], percent) for rounds in (server, base))
    by_round = [percentile(one, percent) for one in server]
    alone = statistics.median([ms for one in engine for ms in one])
    notes = f"peer: S²GR; engine alone p50 {alone:.2f} ms; {sum(map(len, server))} requests in turn; {shape}"
    return Row(f"{name}, 1 caller, p{percent}", ours, peer, ours / peer, None, None, abs(spread(by_round)), "ms", notes)


def _asked(stack: contextlib.ExitStack, shape: Shape) -> Asked:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    world = stack.enter_context(doors(Path(folder), shape))
    engine = Recommender.open(world.bundle.folder)
    made = requests(engine.catalog, engine.as_of_time, 200, seed=1)
    expected = [engine.recommend([request])[0] for request in made]
    client = stack.enter_context(RecommendClient(world.server.url, timeout_s=_TIMEOUT_S, retries=0))
    return Asked(engine, made, expected, client, world)


def _ms(ask: Any, number: int) -> float:
    started = time.perf_counter()
    ask(number)
    return (time.perf_counter() - started) * 1000
