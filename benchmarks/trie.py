"""The trie as the catalogue grows: its build, its bytes, what a step pays for it, beside what one would use instead.

Catalogues are drawn without replacement from all semantic IDs, the codes of a level used as 1 / rank, so that fan-outs
are skewed as those of real codebooks are. Hypotheses are the prefixes of items drawn at random.

Axes: `item` catalogue rows, `level` codes of an item, `row` hypotheses, `code` one codebook.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import trie_peers as peers
from benchmarks.measure import Row, bounded, compare, cpu_seconds, report, spread
from sidrec.decoding import expansion, native
from sidrec.decoding.expansion import Expansion, expand
from sidrec.decoding.openings import ItemRule, Openings
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import CheckFailedError
from sidrec.systems.s2gr.config import S2GRModelConfig, Thinking
from sidrec.systems.s2gr.frozen import FrozenGenerator, FrozenSteps
from sidrec.systems.s2gr.model import S2GRModel

LEVELS, BEAMS = 3, 20
# Positions of the encoder's memory: 20 items of 3 codes.
POSITIONS = 60
Output = TypeVar("Output")


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    grown: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    codes: int = 256
    users: tuple[int, ...] = (1, 32)
    beside_peers: int = 1_000_000
    compared: tuple[int, ...] = (12_000, 100_000)
    seen: int = 100
    dim: int = 128
    layers: int = 4
    repeats: int = 9
    long_repeats: int = 3
    inner: int = 30
    judged: bool = True

    def goal(self, goal: float) -> float | None:
        """Return the goal where the sizes are large enough to judge it."""
        return goal if self.judged else None


QUICK = Sizes((200, 400, 800), 16, (1, 2), 800, (200, 400), 5, 16, 1, 2, 2, 2, judged=False)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    with torch.no_grad():
        return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every row, size by size, then what takes all sizes."""
    build: list[Row] = []
    steps: dict[int, list[Row]] = {users: [] for users in sizes.users}
    for items in sizes.grown:
        world = World.of(items, sizes)
        row = _build(world)
        build.append(row)
        yield row
        yield from _bytes(world)
        for users in sizes.users:
            row = _step(world, users)
            steps[users].append(row)
            yield row
        yield from _shares(world)
        yield from _excluded(world)
        if items == sizes.beside_peers:
            yield from _beside_peers(world)
    yield _exponent(
        "build", sizes, [items / (row.ours or math.nan) for items, row in zip(sizes.grown, build, strict=True)], 1.1
    )
    for users, measured in steps.items():
        name = f"mask and selection, {users * BEAMS} rows"
        yield _exponent(name, sizes, [row.ours or math.nan for row in measured], 0.3)
    for items in sizes.compared:
        yield _beside_check(World.of(items, sizes))


def catalogue(items: int, codes: int) -> NDArray[np.int32]:
    """Return that many distinct semantic IDs [item, level], an ID drawn in proportion to the product of 1 / rank."""
    rng = np.random.default_rng(0)
    weight = -np.log(np.arange(1, codes + 1, dtype=np.float32))
    # The largest of log weight plus Gumbel noise are a weighted draw without replacement.
    key = (weight[:, None, None] + weight[:, None] + weight).ravel()
    key += rng.gumbel(size=len(key)).astype(np.float32)
    drawn = rng.permutation(np.argpartition(-key, items - 1)[:items])
    return np.stack(np.unravel_index(drawn, (codes,) * LEVELS), axis=1).astype(np.int32)


@dataclass(frozen=True)
class World:
    """A catalogue, its trie, and hypotheses in it."""

    sizes: Sizes
    item_codes: NDArray[np.int32]
    trie: PrefixTrie
    bias: Float[Tensor, " node"]

    @classmethod
    def of(cls, items: int, sizes: Sizes) -> "World":
        """Return the same world for the same sizes."""
        item_codes = catalogue(items, sizes.codes)
        trie = PrefixTrie.from_codes(item_codes)
        bias = torch.randn(trie.num_nodes, generator=torch.Generator().manual_seed(0))
        return cls(sizes, item_codes, trie, bias)

    def hypotheses(self, users: int) -> Int[Tensor, " row"]:
        """Return the items, drawn at random, whose prefixes a batch holds."""
        generator = torch.Generator().manual_seed(users)
        return torch.randint(self.trie.num_items, (users * BEAMS,), generator=generator)

    def step(self, users: int, openings: Openings | None = None) -> "Step":
        """Return the second and the third code of a batch of searches, ready to be chosen."""
        generator = torch.Generator().manual_seed(users)
        paths = self.trie.paths(self.hypotheses(users))
        logits = torch.randn(users, BEAMS, self.sizes.codes, generator=generator)
        scores = torch.randn(users, BEAMS, generator=generator)
        return Step(self, [path.view(users, BEAMS) for path in paths], logits, scores, openings)


@dataclass(frozen=True)
class Step:
    """All that a search does between two answers of the decoder, at both places where there are many prefixes."""

    world: World
    paths: list[Int[Tensor, "batch beam"]]
    logits: Float[Tensor, "batch beam code"]
    scores: Float[Tensor, "batch beam"]
    openings: Openings | None
    in_tensors: bool = False

    def expanded(self, depth: int) -> Expansion:
        """Return the mask of one place."""
        return expand(self.world.trie, depth, self.paths[depth], self.world.bias)

    def __call__(self) -> tuple[Tensor, ...]:
        """Return what is kept at both places."""
        kept: tuple[Tensor, ...] = ()
        picks = expansion.picks if self.in_tensors else native.picks
        for depth in range(1, LEVELS):
            asked = (self.world.trie, depth, self.paths[depth], self.scores, self.logits, self.world.bias)
            kept += picks(*asked, width=BEAMS, allowed=self.openings)
        return kept

    def by_tensors(self) -> "Step":
        """Return the same work as tensor operations, which other devices do."""
        return replace(self, in_tensors=True)


def _build(world: World) -> Row:
    items = world.trie.num_items
    repeats = world.sizes.long_repeats if items > 1_000_000 else world.sizes.repeats
    times = [cpu_seconds(lambda: PrefixTrie.from_codes(world.item_codes))[0] for _ in range(repeats)]
    goal, rate = world.sizes.goal(2e6), items / statistics.median(times)
    met = None if goal is None else rate >= goal
    limit = None if goal is None else ">= 2e+06"
    forms = ", ".join(type(level).__name__ for level in world.trie.offsets)
    notes = f"offsets by level: {forms}; {repeats} repeats"
    return Row(f"build, {items:.0e} items", rate, None, None, limit, met, spread(times), "items/s", notes)


def _bytes(world: World) -> Iterator[Row]:
    trie = world.trie
    itself = trie.nbytes / trie.num_items
    places = trie.place.nbytes / trie.num_items
    yield bounded(
        f"bytes an item, {trie.num_items:.0e} items",
        itself + places,
        goal=world.sizes.goal(8.0),
        unit="B/item",
        notes=f"{itself:.2f} for a search, {places:.2f} more to score or exclude chosen items",
    )


def _step(world: World, users: int) -> Row:
    step, inner = world.step(users), world.sizes.inner
    touched = [len(step.expanded(depth).node) for depth in range(1, LEVELS)]
    name = f"mask and selection of a step, {users * BEAMS} rows, {world.trie.num_items:.0e} items"
    row = compare(
        name, _times(step, inner), _times(step.by_tensors(), inner), check=_same_picks, goal=None,
        repeats=world.sizes.repeats,
    )  # fmt: skip
    if row.ours is None or row.peer is None:
        return row
    each = inner * (LEVELS - 1)
    notes = f"peer: the tensor path; mean of the second and third code, of {touched[0]} and {touched[1]} continuations"
    return replace(row, ours=row.ours / each, peer=row.peer / each, notes=notes)


def _same_picks(ours: tuple[Tensor, ...], peer: tuple[Tensor, ...]) -> str:
    for own, other in zip(ours, peer, strict=True):
        if not torch.allclose(own.double(), other.double(), atol=1e-5):
            raise CheckFailedError("the compiled step and the tensor step keep different continuations")
    return "equal picks"


def _shares(world: World) -> Iterator[Row]:
    """Yield the mask's share of a step of one request, compiled and by tensors, without and with thinking."""
    kinds: tuple[Thinking, ...] = ("none", "stepwise")
    for thinking in kinds:
        decoder = Decoder.of(world.sizes, thinking)
        for way, step, goal in (("compiled", world.step(1), 0.01), ("tensors", world.step(1).by_tensors(), 0.04)):
            mask = _times(step, world.sizes.inner)
            mask()
            shares, steps = [], []
            for _ in range(world.sizes.repeats):
                # In turn, so that both see the machine in the same state.
                steps.append(decoder.seconds())
                own = cpu_seconds(mask)[0] / world.sizes.inner / (LEVELS - 1)
                shares.append(own / (own + steps[-1]))
            yield bounded(
                f"share of a step, {way}, {BEAMS} rows, thinking {thinking}, {world.trie.num_items:.0e} items",
                statistics.median(shares),
                goal=world.sizes.goal(goal),
                unit="share",
                notes=f"the rest of it, the decoder as served, {statistics.median(steps) * 1e3:.2f} ms: "
                f"{world.sizes.layers} layers of {world.sizes.dim}, {POSITIONS} positions",
                spread=spread(shares),
            )


@dataclass(frozen=True)
class Decoder:
    """The generator's own part of the two steps that have many hypotheses."""

    steps: FrozenSteps
    count: int

    @classmethod
    def of(cls, sizes: Sizes, thinking: Thinking) -> "Decoder":
        """Return a generator with random weights, one encoded history before it."""
        torch.manual_seed(0)
        config = S2GRModelConfig.model_validate(
            {
                "dim": sizes.dim,
                "num_heads": 4,
                "ff_dim": 4 * sizes.dim,
                "encoder_layers": 1,
                "decoder_layers": sizes.layers,
                "auxiliary_layers": 1,
                "thinking": thinking,
                "max_positions": POSITIONS,
            }
        )
        model = S2GRModel(config, codebook_sizes=[sizes.codes] * LEVELS, code_dim=8, num_nodes=1).eval()
        generator, rank = FrozenGenerator(model), torch.arange(POSITIONS)[None]
        bias = generator.cross_bias(rank.amax(dim=1, keepdim=True), rank)
        memory = generator.decoder.remember(torch.randn(1, POSITIONS, sizes.dim), bias)
        return cls(FrozenSteps(generator, memory), sizes.inner)

    def seconds(self) -> float:
        """Return the mean CPU time of a step."""
        origin = torch.zeros(1, BEAMS, dtype=torch.int64)
        total = 0.0
        for _ in range(self.count):
            self.steps.begin()
            started = time.process_time()
            for _ in range(1, LEVELS):
                self.steps.extend(origin, origin)
            total += time.process_time() - started
        return total / self.count / (LEVELS - 1)


def _excluded(world: World) -> Iterator[Row]:
    """Yield what excluding a history item by item costs beside the mask alone, the preparation shared by all steps."""
    generator = torch.Generator().manual_seed(1)
    for users in world.sizes.users:
        seen = torch.randint(world.trie.num_items, (users, world.sizes.seen), generator=generator)
        # Items whose prefixes are hypotheses, so that something is there to close.
        hits = min(BEAMS, world.sizes.seen) // 2
        seen[:, :hits] = world.hypotheses(users).view(users, BEAMS)[:, :hits]
        rule = ItemRule.blocking(world.trie, None)
        plain, closing = world.step(users), world.step(users, rule.without(seen))

        def excluding(closing: Step = closing, rule: ItemRule = rule, seen: Tensor = seen) -> Openings:
            closing()
            return rule.without(seen)

        plain()
        ratios = []
        for _ in range(world.sizes.repeats):
            alone = cpu_seconds(_times(plain, world.sizes.inner))[0]
            ratios.append(cpu_seconds(_times(excluding, world.sizes.inner))[0] / alone)
        yield bounded(
            f"excluding {world.sizes.seen} items a request, {users * BEAMS} rows, {world.trie.num_items:.0e} items",
            statistics.median(ratios),
            goal=world.sizes.goal(2.0),
            unit="x the plain mask",
            notes="both steps and what is prepared for a search, which has three",
            spread=spread(ratios),
        )


def _beside_peers(world: World) -> Iterator[Row]:
    codes, size = torch.from_numpy(world.item_codes).long(), world.sizes.codes
    root, keys = peers.dict_trie(codes), peers.sorted_keys(codes, size)
    for users in world.sizes.users:
        prefixes = codes[world.hypotheses(users)][:, : LEVELS - 1]
        name = f"mask of the third code, {users * BEAMS} rows, {world.trie.num_items:.0e} items vs"
        yield _beside(world, users, LEVELS - 1, f"{name} dicts", partial(peers.walked, root, prefixes), None)
        yield _beside(
            world,
            users,
            LEVELS - 1,
            f"{name} sorted keys",
            partial(peers.searched, keys, prefixes, size, LEVELS),
            None,
        )


def _beside_check(world: World) -> Row:
    codes = torch.from_numpy(world.item_codes).long()
    prefixes = codes[world.hypotheses(1)][:, :1]
    name = f"mask of the second code, {BEAMS} rows, {world.trie.num_items:.0e} items vs a check of every item"
    return _beside(world, 1, 1, name, lambda: peers.compared(codes, prefixes, world.sizes.codes), 100.0)


def _beside(
    world: World, users: int, depth: int, name: str, peer: Callable[[], Tensor | list[list[int]]], goal: float | None
) -> Row:
    step, inner = world.step(users), world.sizes.inner

    def same(own: Expansion, other: Tensor | list[list[int]]) -> str:
        mask = torch.zeros(users * BEAMS, world.sizes.codes, dtype=torch.bool)
        mask[own.candidates.row.long(), own.candidates.codes.long()] = True
        if isinstance(other, list):
            dense = torch.zeros_like(mask)
            for row, allowed in enumerate(other):
                dense[row, allowed] = True
            other = dense
        if not torch.equal(mask, other):
            raise CheckFailedError(
                f"ours allows {int(mask.sum())} codes, the peer {int(other.sum())}, not the same ones"
            )
        return f"{int(mask.sum())} codes allowed by both"

    row = compare(
        name, _times(lambda: step.expanded(depth), inner), peer, check=same, goal=None, repeats=world.sizes.repeats
    )
    if row.ours is None or row.peer is None:
        return replace(row, met=None if world.sizes.goal(1.0) is None or goal is None else False)
    limit = None if goal is None else world.sizes.goal(goal)
    ratio = row.peer / (row.ours / inner)
    met = None if limit is None else ratio >= limit
    return replace(row, ours=row.ours / inner, ratio=ratio, goal=None if limit is None else f">= {limit:g}", met=met)


def _exponent(name: str, sizes: Sizes, seconds: list[float], goal: float) -> Row:
    slope = float(np.polyfit(np.log(sizes.grown), np.log(seconds), 1)[0])
    notes = ", ".join(f"{items:.0e}: {value:.3g} s" for items, value in zip(sizes.grown, seconds, strict=True))
    return bounded(f"exponent in items, {name}", slope, goal=sizes.goal(goal), unit="exponent", notes=notes)


def _times(call: Callable[[], Output], count: int) -> Callable[[], Output]:
    def again() -> Output:
        for _ in range(count - 1):
            call()
        return call()

    return again
