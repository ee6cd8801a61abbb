"""Decoding: our two engines beside Hugging Face's `generate` with the same weights, and beside their own arithmetic.

A request is a history of 20 items of 3 x 256 codes out of 12,000 items (60 tokens) and asks for 20 beams; a second
shape has 4 levels and 50 beams. Ours decoder-only runs Qwen3's weights; ours encoder-decoder is S²GR's ranker, from
queries to items, with T5's. Equal output is the same items with scores within 1e-4.

Axes: `batch` requests, `item` catalogue, `level` codes of one, `token` codes of a history.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hf_peers import Found, Vocabulary, Widths, causal_decoder, generator, qwen3, t5
from benchmarks.measure import Row, bounded, compare, cpu_seconds, report, spread
from sidrec.data.catalog import Catalog
from sidrec.decoding.beam import beam_search
from sidrec.decoding.trie import NONE, PrefixTrie
from sidrec.errors import CheckFailedError
from sidrec.nn.causal import CausalDecoder, CausalSteps, CodeTokens
from sidrec.systems.base import Query
from sidrec.systems.s2gr.config import Thinking
from sidrec.systems.s2gr.rank import S2GRRanker

DAY = 86_400
# Scores that differ by less are equal.
TOLERANCE = 1e-4


WIDTHS = Widths()


@dataclass(frozen=True)
class Shape:
    """One catalogue and what is asked of it."""

    levels: int
    beams: int
    batches: tuple[int, ...]
    history: int = 20
    codes: int = 256
    items: int = 12_000


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    widths: Widths = WIDTHS
    shapes: tuple[Shape, ...] = (Shape(3, 20, (1, 8, 32)), Shape(4, 50, (1, 8)))
    growth_beams: tuple[int, int] = (20, 200)
    growth_items: tuple[int, int] = (20, 160)
    # A batch of one is measured over so many requests, one after the other.
    singles: int = 8
    repeats: int = 9
    # The peer takes seconds for one batch of this size.
    slow_batch: int = 32
    slow_repeats: int = 3
    judged: bool = True

    def goal(self, goal: float) -> float | None:
        """Return the goal where the sizes are large enough to judge it."""
        return goal if self.judged else None


QUICK = Sizes(
    Widths(16, 2, 32, 1),
    (Shape(3, 4, (1, 2), history=3, codes=8, items=60),),
    (2, 4),
    (2, 4),
    singles=2,
    repeats=2,
    slow_repeats=2,
    judged=False,
)
CAUSAL_GOALS = {1: 10.0, 8: 15.0, 32: 15.0}
T5_GOALS = {1: 3.5, 8: 4.0, 32: 3.5}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every row, shape by shape, then what grows."""
    for shape in sizes.shapes:
        world = World.of(shape, sizes.widths)
        for batch in shape.batches:
            yield _beside(world, sizes, "decoder-only", batch)
            yield _beside(world, sizes, "encoder-decoder", batch)
    world = World.of(sizes.shapes[0], sizes.widths)
    for batch in world.shape.batches:
        yield _thinking(world, sizes, batch)
    for engine in ("decoder-only", "encoder-decoder"):
        for batch in world.shape.batches:
            yield _above_floor(world, sizes, engine, batch)
        yield _cache(world, sizes, engine)
        yield from _growth(sizes, engine)


class World:
    """A catalogue and both engines beside their peers."""

    def __init__(self, shape: Shape, widths: Widths, item_codes: NDArray[np.int32]) -> None:
        self.shape = shape
        self.vocabulary = Vocabulary(item_codes, shape.codes)
        self.trie = PrefixTrie.from_codes(item_codes)
        self.catalog = catalog_of(item_codes)
        self.flat = torch.zeros(self.trie.num_nodes)
        self.peers = {"decoder-only": qwen3(widths, self.vocabulary), "encoder-decoder": t5(widths, self.vocabulary)}
        self.decoder: CausalDecoder = causal_decoder(self.peers["decoder-only"])
        self.tokens = CodeTokens(self.decoder, [self.vocabulary.level_tokens(level) for level in range(shape.levels)])
        self.widths = widths
        self.ranker = self.thinker("none")

    @classmethod
    def of(cls, shape: Shape, widths: Widths) -> "World":
        """Return the same world for the same sizes."""
        drawn = np.random.default_rng(1).choice(shape.codes**shape.levels, shape.items, replace=False)
        item_codes = np.stack(np.unravel_index(drawn, (shape.codes,) * shape.levels), axis=1).astype(np.int32)
        return cls(shape, widths, item_codes)

    def thinker(self, thinking: Thinking) -> S2GRRanker:
        """Return S²GR's ranker over T5's weights."""
        model = generator(
            self.peers["encoder-decoder"],
            self.widths,
            num_nodes=self.trie.num_nodes,
            max_items=self.shape.history,
            thinking=thinking,
        )
        return S2GRRanker.of(model, self.catalog, self.trie, self.flat, None)

    def histories(self, batch: int, seed: int) -> NDArray[np.int64]:
        """Return items bought a day each."""
        return np.random.default_rng(seed).integers(0, self.shape.items, (batch, self.shape.history))

    def prompt(self, histories: NDArray[np.int64]) -> Tensor:
        """Return the histories' tokens."""
        return self.vocabulary.tokens[torch.from_numpy(histories)].flatten(1)

    def causal(self, tokens: Tensor, beams: int) -> Found:
        """Return what the decoder-only engine finds."""
        steps = self.causal_steps(tokens)
        with torch.no_grad():
            found = beam_search(steps, self.trie, self.flat, beam_width=beams)
        return Found(found.items, found.log_probs)

    def causal_steps(self, tokens: Tensor) -> CausalSteps:
        """Return the decoder-only engine after the prompts."""
        lengths = torch.full((len(tokens),), tokens.shape[1])
        return CausalSteps(self.decoder, self.decoder.read(tokens, lengths), self.tokens)

    def rank(self, ranker: S2GRRanker, queries: list[Query], beams: int) -> Found:
        """Return what S²GR's ranker finds."""
        rankings = ranker.rank(queries, beam_width=beams, blocked=np.zeros(self.shape.items, dtype=bool))
        items, scores = np.full((2, len(rankings), beams), NONE, dtype=np.float64)
        for row, ranking in enumerate(rankings):
            items[row, : len(ranking.items)], scores[row, : len(ranking.items)] = ranking.items, ranking.scores
        return Found(torch.from_numpy(items.astype(np.int64)), torch.from_numpy(scores))

    def ours(self, engine: str, histories: NDArray[np.int64]) -> Callable[[], Found]:
        """Return what answers these histories."""
        if engine == "decoder-only":
            return partial(self.causal, self.prompt(histories), self.shape.beams)
        return partial(self.rank, self.ranker, queries(histories, self.shape.beams), self.shape.beams)


def catalog_of(item_codes: NDArray[np.int32]) -> Catalog:
    """Return a catalogue of equally popular items."""
    count = len(item_codes)
    names = [f"i{row}" for row in range(count)]
    table = {"item_id": names, "title": names, "popularity": [1] * count, "recent_popularity": [1] * count}
    return Catalog.build(pl.DataFrame(table), item_codes)


def queries(histories: NDArray[np.int64], k: int) -> list[Query]:
    """Return each history as a query for `k` items, seen ones among them."""
    days = np.arange(histories.shape[1])
    return [Query(items, days * DAY, days, len(days) * DAY, k, False) for items in histories]


def equal(ours: list[Found], peer: list[Found]) -> str:
    """Return in words how the answers agree.

    Raises:
        CheckFailedError: an item or a score differs, so no time would mean anything.
    """
    furthest, count = 0.0, 0
    for own, other in zip(ours, peer, strict=True):
        for row in range(len(own.items)):
            scores = dict(zip(other.items[row].tolist(), other.log_probs[row].tolist(), strict=True))
            mine = dict(zip(own.items[row].tolist(), own.log_probs[row].tolist(), strict=True))
            if mine.keys() != scores.keys():
                raise CheckFailedError(f"{len(mine.keys() - scores.keys())} of {len(mine)} items are not the peer's")
            furthest = max(furthest, max(abs(mine[item] - scores[item]) for item in mine))
            count += 1
    if furthest > TOLERANCE:
        raise CheckFailedError(f"scores differ by {furthest:.2g}; a time counts at {TOLERANCE:.0e} at most")
    return f"the same items for {count} requests, scores within {furthest:.0e}"


def _calls(calls: list[Callable[[], Found]]) -> Callable[[], list[Found]]:
    return lambda: [call() for call in calls]


def _beside(world: World, sizes: Sizes, engine: str, batch: int) -> Row:
    """Return the row of one engine, shape and batch against its peer."""
    shape, peer = world.shape, world.peers[engine]
    name = {"decoder-only": "Qwen3", "encoder-decoder": "T5"}[engine]
    goals = CAUSAL_GOALS if engine == "decoder-only" else T5_GOALS
    many = sizes.singles if batch == 1 else 1
    asked = [world.histories(batch, seed) for seed in range(many)]
    row = compare(
        f"{engine} vs Hugging Face {name} with prefix_allowed_tokens_fn, batch {batch}, {shape.levels} x "
        f"{shape.codes}, {shape.history * shape.levels} tokens, {shape.beams} beams",
        _calls([world.ours(engine, histories) for histories in asked]),
        _calls([partial(peer.search, world.prompt(histories), shape.beams) for histories in asked]),
        check=equal,
        goal=sizes.goal(goals.get(batch, math.inf)),
        repeats=sizes.slow_repeats if batch >= sizes.slow_batch else sizes.repeats,
    )
    return _milliseconds(row, many)


def _milliseconds(row: Row, calls: int) -> Row:
    if row.ours is None or row.peer is None:
        return row
    return replace(row, ours=row.ours * 1e3 / calls, peer=row.peer * 1e3 / calls, unit="ms")


def _thinking(world: World, sizes: Sizes, batch: int) -> Row:
    shape = world.shape
    many = sizes.singles if batch == 1 else 1
    asked = [queries(world.histories(batch, seed), shape.beams) for seed in range(many)]
    thinker = world.thinker("stepwise")

    def complete(none: list[Found], thought: list[Found]) -> str:
        if any((found.items == NONE).any() for found in (*none, *thought)):
            raise CheckFailedError("a search found fewer items than beams")
        return "a thinking token before each code"

    row = compare(
        "",
        _calls([partial(world.rank, world.ranker, some, shape.beams) for some in asked]),
        _calls([partial(world.rank, thinker, some, shape.beams) for some in asked]),
        check=complete,
        goal=None,
        repeats=sizes.repeats,
    )
    assert row.ours is not None
    assert row.peer is not None
    assert row.ratio is not None
    return bounded(
        f"thinking stepwise as a multiple of none, batch {batch}",
        row.ratio,
        goal=sizes.goal(1.6),
        unit="x",
        notes=f"{row.ours * 1e3 / many:.2f} ms without, {row.peer * 1e3 / many:.2f} ms with; {row.notes}",
        spread=row.spread,
    )


def _above_floor(world: World, sizes: Sizes, engine: str, batch: int) -> Row:
    """Return how many times the time that its products would take at the peak of this machine."""
    many = sizes.singles if batch == 1 else 1
    call = _calls([world.ours(engine, world.histories(batch, seed)) for seed in range(many)])
    flops = flops_of(call)
    side = 1024 if sizes.judged else 64
    square = torch.randn(side, side)
    count = max(1, round(flops / (2 * side**3)))

    def peak() -> None:
        for _ in range(count):
            square @ square

    row = compare("", call, peak, check=lambda own, other: "", goal=None, repeats=sizes.repeats)
    assert row.ours is not None
    assert row.peer is not None
    speed = count * 2 * side**3 / row.peer
    return bounded(
        f"{engine}: time over that of its products at the fp32 peak, batch {batch}",
        row.ours * speed / flops,
        goal=sizes.goal(2.0 if batch == 1 else 1.5),
        unit="x",
        notes=f"{flops / many / 1e9:.3f} GFLOP a batch; in turn with products of {side}^3 at {speed / 1e9:.0f} GFLOP/s",
        spread=row.spread,
    )


def flops_of(call: Callable[[], object]) -> int:
    """Return the operations of a call's matrix products, two for each pair of numbers that are multiplied."""

    def in_place(added: Any, left: Any, right: Any, **kwargs: Any) -> int:
        return int(2 * left[0] * left[1] * right[1])

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        # Causal, but counted whole, as everyone does.
        return int(2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))

    aten: Any = torch.ops.aten
    own = {aten.addmm_: in_place, aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        call()
    return int(counter.get_total_flops())


def _cache(world: World, sizes: Sizes, engine: str) -> Row:
    """Return our share of the peer's bytes of keys and values after the last step of one request."""
    shape, peer, histories = world.shape, world.peers[engine], world.histories(1, 0)
    tokens = world.prompt(histories)
    theirs = peer.cache_bytes(tokens, shape.beams)
    if engine == "decoder-only":
        causal = world.causal_steps(tokens)
        beam_search(causal, world.trie, world.flat, beam_width=shape.beams)
        held = causal.held()
    else:
        steps = world.ranker.steps(queries(histories, shape.beams))
        beam_search(steps, world.trie, world.flat, beam_width=shape.beams)
        held = steps.held()
    ours = sum(tensor.numel() * tensor.element_size() for tensor in held)
    return bounded(
        f"{engine}: keys and values of a request as a share of Hugging Face's, {shape.beams} beams",
        ours / theirs,
        goal=sizes.goal(1 / 8),
        unit="x",
        notes=f"{ours / 1e3:.0f} kB, the peer's {theirs / 1e3:.0f} kB, of the tensors held after the last step",
    )


def _growth(sizes: Sizes, engine: str) -> Iterator[Row]:
    """Yield the exponents of time in beams and in history."""
    base = sizes.shapes[0]
    few, many = sizes.growth_beams
    short, long = sizes.growth_items
    batch = base.batches[min(1, len(base.batches) - 1)]
    beams = (replace(base, beams=few), replace(base, beams=many))
    items = (replace(base, history=short), replace(base, history=long))
    yield _exponent(sizes, engine, batch, beams, many / few, f"beams {few} to {many}", 1.05)
    what = f"history {short * base.levels} to {long * base.levels} tokens"
    yield _exponent(sizes, engine, batch, items, long / short, what, 1.2)


def _exponent(
    sizes: Sizes, engine: str, batch: int, shapes: tuple[Shape, Shape], factor: float, what: str, goal: float
) -> Row:
    times: tuple[list[float], list[float]] = ([], [])
    calls = []
    for shape in shapes:
        world = World.of(shape, sizes.widths)
        calls.append(world.ours(engine, world.histories(batch, 0)))
    for _ in range(sizes.repeats):
        for side, call in zip(times, calls, strict=True):
            side.append(cpu_seconds(call)[0])
    small, large = (statistics.median(side) for side in times)
    return bounded(
        f"{engine}: exponent of time in {what}, batch {batch}",
        math.log(large / small) / math.log(factor),
        goal=sizes.goal(goal),
        unit="",
        notes=f"{small * 1e3:.1f} ms to {large * 1e3:.1f} ms; {sizes.repeats} repeats in turn",
        spread=max(spread(side) for side in times),
    )
