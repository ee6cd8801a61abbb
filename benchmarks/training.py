"""Training: S²GR's step beside that of a Hugging Face T5 of the same widths, and beside its own matrix products.

Histories are as long as Amazon Beauty's, their items drawn at random. Tokens of value are the real tokens that the
encoder reads and the codes that carry loss; a pass of either side has as many, so a ratio of times is one of speeds.

Axes: `user` rows, `item` catalogue indices, `level` codes of an item.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measure import Row, bounded, compare, report
from benchmarks.t5_peer import Rows, Shape, T5Peer, Work
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import CheckFailedError
from sidrec.systems.batches import Sampling, TrainingSet
from sidrec.systems.history import History
from sidrec.systems.s2gr.config import S2GRModelConfig, Thinking
from sidrec.systems.s2gr.losses import Tables, losses
from sidrec.systems.s2gr.model import S2GRModel
from sidrec.systems.s2gr.prior import PopularityPrior
from sidrec.training.device import reproducible
from sidrec.training.optim import adamw

LEVELS = 3
# Items that an encoder sees, TIGER's number; a sequence has its target on top.
CAP = 20
CLUSTERS, CODE_DIM = 16, 32
LEARNING_RATE = 3e-3
Product = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

TIGER = Shape("TIGER's widths", dim=128, heads=6, head_dim=64, ff_dim=1024, layers=4)
SMALL = Shape("dim 64", dim=64, heads=2, head_dim=32, ff_dim=256, layers=2)


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    shapes: tuple[Shape, ...] = (TIGER, SMALL)
    items: int = 12_000
    codes: int = 256
    users: int = 512
    window_users: int = 64
    batch: int = 64
    repeats: int = 9
    judged: bool = True

    def goal(self, goal: float) -> float | None:
        """Return the goal where the sizes are large enough to judge it."""
        return goal if self.judged else None


QUICK = Sizes((Shape("dim 16", 16, 2, 8, 32, 1),), 200, 16, 48, 16, 16, 2, judged=False)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the report of all rows; quick sizes show that everything runs and judge nothing."""
    return report(lambda: rows(QUICK if quick else Sizes()))


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield every row, shape by shape."""
    world = World.of(sizes)
    for shape in sizes.shapes:
        yield from _beside_t5(world, shape)
        yield from _beside_products(world, shape)
        yield _thinking(world, shape)


def sequence_lengths(users: int) -> NDArray[np.int64]:
    """Return items a user, in random order: at least 5, median 6, mean 8.9, at most 50, as in Amazon Beauty.

    They are quantiles of 5 and a log-normal, not draws, so that the law is the same for any number of users.
    """
    above = np.exp(0.55 + 1.42 * ndtri((np.arange(users) + 0.5) / users))
    return np.random.default_rng(0).permutation(np.minimum(5 + above.astype(np.int64), 50))


@dataclass(frozen=True)
class World:
    """A catalogue, its frozen tables, and users who buy one item a day."""

    sizes: Sizes
    item_codes: NDArray[np.int32]
    sequences: list[NDArray[np.int64]]
    tables: Tables

    @classmethod
    def of(cls, sizes: Sizes) -> "World":
        """Return the same world for the same sizes."""
        rng = np.random.default_rng(1)
        drawn = rng.choice(sizes.codes**LEVELS, sizes.items, replace=False)
        item_codes = np.stack(np.unravel_index(drawn, (sizes.codes,) * LEVELS), axis=1).astype(np.int32)
        sequences = [rng.integers(0, sizes.items, length)[-CAP - 1 :] for length in sequence_lengths(sizes.users)]
        trie = PrefixTrie.from_codes(item_codes)
        generator = torch.Generator().manual_seed(0)
        tables = Tables(
            trie=trie,
            ancestors=trie.ancestors,
            codes=torch.from_numpy(item_codes.astype(np.int64)),
            present=torch.ones(sizes.items, LEVELS),
            clusters=[torch.randint(CLUSTERS, (sizes.codes,), generator=generator) for _ in range(LEVELS)],
            centres=[torch.randn(CLUSTERS, CODE_DIM, generator=generator) for _ in range(LEVELS)],
            prior=PopularityPrior.static(histories(sequences), trie),
        )
        return cls(sizes, item_codes, sequences, tables)


def histories(sequences: Sequence[NDArray[np.int64]]) -> list[History]:
    """Return each sequence as baskets of one item, a day each."""
    return [History(items, np.arange(len(items) + 1), np.arange(len(items))) for items in sequences]


class Ours:
    """S²GR at the peer's widths in the flat layout, users of like lengths in a batch."""

    def __init__(
        self,
        world: World,
        shape: Shape,
        sequences: Sequence[NDArray[np.int64]],
        *,
        thinking: Thinking = "none",
        points: Literal["all", "last"] = "last",
        batch: int,
    ) -> None:
        torch.manual_seed(0)
        config = S2GRModelConfig.model_validate(
            {
                "flatten": True,
                # Only a causal encoder has more than one point a history.
                "encoder": "causal" if points == "all" else "full",
                "max_positions": CAP,
                "dim": shape.dim,
                "num_heads": shape.heads,
                "head_dim": shape.head_dim,
                "ff_dim": shape.ff_dim,
                "encoder_layers": shape.layers,
                "decoder_layers": shape.layers,
                "auxiliary_layers": max(1, shape.layers // 2),
                "dropout": shape.dropout,
                "tie_codes": True,
                "thinking": thinking,
            }
        )
        self.tables = world.tables
        self.model = S2GRModel(
            config,
            codebook_sizes=[world.sizes.codes] * LEVELS,
            code_dim=CODE_DIM,
            num_nodes=world.tables.trie.num_nodes,
        ).train()
        self.optimizer = adamw(self.model.named_parameters(), learning_rate=LEARNING_RATE, weight_decay=0.0)
        sampling = Sampling(
            batch_users=batch,
            targets=1,
            item_dropout=0.0,
            max_positions=CAP,
            flatten=LEVELS,
            repeat_weight=1.0,
            half_life_days=None,
            prior_delay_days=0,
            split_share=0.0,
            points=points,
        )
        self.data = TrainingSet(histories(sequences), sampling, fit_day=CAP + 1, seed=0)

    def epoch(self) -> Work:
        """Return what one pass over all users learnt from; it is reproducible, as every fit is."""
        with reproducible(1, torch.device("cpu")):
            return self._epoch()

    def _epoch(self) -> Work:
        read = learnt = 0
        values = []
        for batch in self.data.batches(0):
            terms = losses(self.model, batch, self.tables, self.tables.prior.on(batch.prior_day))
            self.optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            read += int((batch.inputs.rank >= 0).sum())
            learnt += int((batch.point_weight > 0).sum()) * LEVELS
            values.append(sum(float(value.detach()) for name, value in terms.items() if name.startswith("rec_")))
        return Work(read, learnt, sum(values) / len(values) / LEVELS)


def _beside_t5(world: World, shape: Shape) -> Iterator[Row]:
    sizes = world.sizes
    learns = _both_learn(world, shape)
    ours = Ours(world, shape, world.sequences, batch=sizes.batch)
    peer = _peer(world, shape)
    flat = Rows.of(world.sequences, world.item_codes, sizes.codes, CAP)
    what = f"{shape.name}, {_padding(flat, sizes.batch)}"

    def same_work(own: Work, other: Work) -> str:
        if (own.read, own.learnt) != (other.read, other.learnt):
            raise CheckFailedError(f"ours read {own.read}, learnt {own.learnt}; peer {other.read}, {other.learnt}")
        return f"{own.read} tokens read and {own.learnt} codes learnt by both; {learns}"

    row = compare(
        f"tokens of value a second, one target a user, {what} vs Hugging Face T5",
        ours.epoch,
        partial(peer.epoch, flat, sizes.batch),
        check=same_work,
        goal=sizes.goal(1.8),
        repeats=sizes.repeats,
    )
    yield _per_second(row, sum(map(len, flat.tokens)) + flat.labels.numel(), "tokens/s")

    sequences = world.sequences[: sizes.window_users]
    prefixes = [items[:end] for items in sequences for end in range(2, len(items) + 1)]
    windows = Rows.of(prefixes, world.item_codes, sizes.codes, CAP)
    # As many targets a step as the peer has rows.
    users = max(1, round(sizes.batch * len(sequences) / len(prefixes)))
    together = Ours(world, shape, sequences, points="all", batch=users)

    def same_targets(own: Work, other: Work) -> str:
        if own.learnt != other.learnt:
            raise CheckFailedError(f"ours learnt {own.learnt} codes, the peer {other.learnt}")
        return f"{own.learnt} codes learnt by both, {own.read} tokens read by ours and {other.read} by the peer"

    row = compare(
        f"codes learnt a second, every item after the first a target, {shape.name} vs Hugging Face T5, a row a target",
        together.epoch,
        partial(peer.epoch, windows, sizes.batch),
        check=same_targets,
        goal=None,
        repeats=sizes.repeats,
    )
    yield _per_second(row, windows.labels.numel(), "codes/s")


def _beside_products(world: World, shape: Shape) -> Iterator[Row]:
    sizes = world.sizes
    ours = Ours(world, shape, world.sequences, batch=sizes.batch)
    with Products() as products:
        ours.epoch()
    flops, side = products.flops, 1024
    square = torch.randn(side, side)
    count = max(1, round(flops / (2 * side**3)))
    seconds = f"{flops / 1e9:.1f} GFLOP of matrix products a pass"

    def peak() -> None:
        for _ in range(count):
            square @ square

    def no_check(own: Work, other: None) -> str:
        return seconds

    judged = shape == TIGER
    row = compare(
        f"share of the fp32 peak (products of {side}^3), step at {shape.name}",
        ours.epoch,
        peak,
        check=no_check,
        goal=sizes.goal(0.6) if judged else None,
        repeats=sizes.repeats,
    )
    assert row.ours is not None
    assert row.peer is not None
    # The peer's products are a whole number; the share is of speeds.
    speeds = flops / row.ours / 1e9, count * 2 * side**3 / row.peer / 1e9
    share = speeds[0] / speeds[1]
    met = None if row.met is None else share >= 0.6
    yield replace(row, ours=speeds[0], peer=speeds[1], ratio=share, met=met, unit="GFLOP/s")
    row = compare(
        f"share of a step that its matrix products alone take, {shape.name}",
        ours.epoch,
        products.replay(),
        check=no_check,
        goal=None,
        repeats=sizes.repeats,
    )
    assert row.ours is not None
    assert row.peer is not None
    yield replace(row, ours=flops / row.ours / 1e9, peer=flops / row.peer / 1e9, unit="GFLOP/s")


def _thinking(world: World, shape: Shape) -> Row:
    sizes = world.sizes
    plain, stepwise = (
        Ours(world, shape, world.sequences, thinking=kind, batch=sizes.batch) for kind in ("none", "stepwise")
    )

    def check(none: Work, thought: Work) -> str:
        if (none.read, none.learnt) != (thought.read, thought.learnt):
            raise CheckFailedError("the passes are not of the same tokens")
        return "its losses on the thinking tokens and the auxiliary decoder included"

    row = compare("", plain.epoch, stepwise.epoch, check=check, goal=None, repeats=sizes.repeats)
    assert row.ratio is not None
    return bounded(
        f"a step of thinking stepwise as a multiple of one without, {shape.name}",
        row.ratio,
        goal=None,
        unit="x",
        notes=f"without {row.ours:.3f} s, with {row.peer:.3f} s; {row.notes}",
        spread=row.spread,
    )


def _both_learn(world: World, shape: Shape, users: int = 8, epochs: int = 40) -> str:
    """Return how far each side's loss fell on a few users, once both fell by a quarter.

    Raises:
        CheckFailedError: a side does not learn, so its time would mean nothing.
    """
    sequences = world.sequences[:users]
    ours, peer = Ours(world, shape, sequences, batch=users), _peer(world, shape)
    flat = Rows.of(sequences, world.item_codes, world.sizes.codes, CAP)
    sides: tuple[tuple[str, Callable[[], Work]], ...] = (
        ("ours", ours.epoch),
        ("peer", partial(peer.epoch, flat, users)),
    )
    said = []
    for name, epoch in sides:
        values = [epoch().loss for _ in range(epochs)]
        if not values[-1] < values[0] * 3 / 4:
            raise CheckFailedError(f"{name} does not learn: loss {values[0]:.3f} to {values[-1]:.3f}")
        said.append(f"{name} {values[0]:.2f} to {values[-1]:.2f}")
    return f"loss a code in {epochs} steps on {users} users: {', '.join(said)}"


def _peer(world: World, shape: Shape) -> T5Peer:
    return T5Peer(shape, levels=LEVELS, codes=world.sizes.codes, learning_rate=LEARNING_RATE)


def _padding(rows: Rows, batch: int) -> str:
    padded = sum(tokens.numel() for tokens, _ in rows.batches(batch))
    return f"{sum(map(len, rows.tokens)) / padded:.0%} of the peer's tokens real"


def _per_second(row: Row, amount: int, unit: str) -> Row:
    """Return the row with speeds in place of times; its ratio is the same."""
    if row.ours is None or row.peer is None:
        return row
    return replace(row, ours=amount / row.ours, peer=amount / row.peer, unit=unit)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products inside, by the shapes and strides of their factors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note a product and let it pass."""
        match func.overloadpacket.__name__:
            case "mm" | "bmm":
                self._note(args[0], args[1])
            case "addmm" | "baddbmm":
                self._note(args[1], args[2])
            case _:
                pass
        return func(*args, **(kwargs or {}))

    def _note(self, left: Tensor, right: Tensor) -> None:
        self.counts[tuple((tuple(factor.shape), factor.stride()) for factor in (left, right))] += 1

    @property
    def flops(self) -> int:
        """Two operations for each pair of numbers that are multiplied."""
        return sum(2 * math.prod(left) * right[-1] * count for ((left, _), (right, _)), count in self.counts.items())

    def replay(self) -> Callable[[], None]:
        """Return what does the same products on numbers of no meaning, and nothing else."""
        factors = [(_strided(*left), _strided(*right), count) for (left, right), count in self.counts.items()]

        def again() -> None:
            for left, right, count in factors:
                for _ in range(count):
                    torch.matmul(left, right)

        return again


def _strided(shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    size = 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    return torch.randn(size).as_strided(shape, stride)
