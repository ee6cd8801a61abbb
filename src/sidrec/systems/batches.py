"""Baskets become encoder positions, and every later basket of a user a training point.

Axes: `user` rows of a batch, `pos` encoder positions, `point` predicted baskets, `target` sampled items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.sharding import Shards
from sidrec.systems.history import BLOCK, Histories, History, Ints


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What the encoder reads.

    A position is a bag of items (a basket), or, in the flat layout, one code of one item. `rank` numbers the
    baskets of a user from 0; -1 is padding.
    """

    items: Int[Tensor, " event"]
    bag_start: Int[Tensor, " user_times_pos"]
    level: Int[Tensor, "user pos"] | None
    rank: Int[Tensor, "user pos"]

    def to(self, device: torch.device) -> "EncoderInput":
        """Return the same input on another device."""
        level = None if self.level is None else self.level.to(device)
        return EncoderInput(self.items.to(device), self.bag_start.to(device), level, self.rank.to(device))

    def rows(self, low: int, high: int) -> "EncoderInput":
        """Return the input of users `low` to `high`."""
        width = self.rank.shape[1]
        start = self.bag_start[low * width : high * width]
        first = int(start[0]) if len(start) else 0
        last = int(self.bag_start[high * width]) if high < len(self.rank) else len(self.items)
        level = None if self.level is None else self.level[low:high]
        return EncoderInput(self.items[first:last], start - first, level, self.rank[low:high])


def encoder_input(
    histories: Sequence[History],
    *,
    flatten: int = 0,
    keep: NDArray[np.bool_] | None = None,
) -> EncoderInput:
    """Return the histories as one padded batch.

    Args:
        flatten: codes of a semantic ID in the flat layout; 0 is one position a basket.
        keep: [event], which events stay (training drops some at random); None keeps all.
    """
    events = np.concatenate([history.items for history in histories])
    kept = np.ones(len(events), dtype=bool) if keep is None else keep
    basket = np.concatenate([np.repeat(np.arange(len(h)), np.diff(h.start)) for h in histories])
    user = np.repeat(np.arange(len(histories)), [len(h.items) for h in histories])
    events, basket, user = events[kept], basket[kept], user[kept]
    if flatten:
        return _flat_input(events, basket, user, len(histories), flatten)
    width = max(len(history) for history in histories)
    lengths = np.array([len(history) for history in histories])
    bag = user * width + basket
    sizes = np.bincount(bag, minlength=len(histories) * width)
    pos = np.arange(width)
    rank = np.where(pos < lengths[:, None], pos, -1)
    return EncoderInput(
        torch.from_numpy(events), torch.from_numpy(np.cumsum(sizes) - sizes), None, torch.from_numpy(rank)
    )


def _flat_input(events: Ints, basket: Ints, user: Ints, num_users: int, num_codes: int) -> EncoderInput:
    counts = np.bincount(user, minlength=num_users)
    width = max(int(counts.max(initial=0)), 1) * num_codes
    rank = np.full((num_users, width), -1)
    level = np.tile(np.arange(num_codes), (num_users, width // num_codes))
    place = np.arange(len(events)) - np.repeat(np.cumsum(counts) - counts, counts)
    item = np.zeros((num_users, width), dtype=np.int64)
    for code in range(num_codes):
        rank[user, place * num_codes + code] = basket
        item[user, place * num_codes + code] = events
    flat = torch.from_numpy(item.reshape(-1))
    return EncoderInput(flat, torch.arange(len(flat)), torch.from_numpy(level), torch.from_numpy(rank))


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Users, the baskets to predict after each of their positions, and a sample of those baskets' items."""

    inputs: EncoderInput
    limit: Int[Tensor, "user point"]  # newest rank that a point may see
    same_day: Float[Tensor, "user point"]  # 1 where the rest of a split basket is predicted
    point_weight: Float[Tensor, "user point"]  # 0 is padding; sums to 1 over the batch
    prior_day: Int[Tensor, "user point"]  # a random delay before the basket's own day
    target_point: Int[Tensor, " event"]  # flat point of each target item
    target_item: Int[Tensor, " event"]
    target_weight: Float[Tensor, " event"]  # sums to 1 over a point
    sampled: Int[Tensor, "user point target"]

    def to(self, device: torch.device) -> "TrainingBatch":
        """Return the same batch on another device."""
        moved = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "inputs"}
        return TrainingBatch(self.inputs.to(device), **{name: value.to(device) for name, value in moved.items()})

    def part(self, rank: int, count: int) -> "TrainingBatch":
        """Return one of `count` parts of the batch's users; point weights still sum to 1 over all of them.

        Raises:
            UsageError: there are fewer users than parts.
        """
        users, points = self.limit.shape
        if users < count:
            raise UsageError(
                f"a batch of {users} users has no part for each of {count} ranks",
                next_step="change training.batch_users, so that the last batch of an epoch is larger",
            )
        low, high = users * rank // count, users * (rank + 1) // count
        own = slice(low, high)
        targets = (self.target_point >= low * points) & (self.target_point < high * points)
        return TrainingBatch(
            inputs=self.inputs.rows(low, high),
            limit=self.limit[own],
            same_day=self.same_day[own],
            point_weight=self.point_weight[own],
            prior_day=self.prior_day[own],
            target_point=self.target_point[targets] - low * points,
            target_item=self.target_item[targets],
            target_weight=self.target_weight[targets],
            sampled=self.sampled[own],
        )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a batch is drawn."""

    batch_users: int
    targets: int
    item_dropout: float
    max_positions: int
    flatten: int
    repeat_weight: float
    half_life_days: float | None
    prior_delay_days: int
    split_share: float
    points: Literal["all", "sampled", "last"] = "all"


class TrainingSet:
    """Users as reproducible batches: an epoch and a step decide every draw; a rank of several gets its part of each.

    A user with a single basket takes part only where baskets are split.
    """

    def __init__(
        self,
        histories: Sequence[History],
        sampling: Sampling,
        *,
        fit_day: int,
        seed: int,
        shards: Shards | None = None,
    ) -> None:
        self.histories = Histories.of(histories)
        sizes = newest_sizes(self.histories, sampling)
        self.users = np.flatnonzero(sizes).astype(np.int32)
        self.sizes = sizes[self.users]
        self.sampling = sampling
        self.fit_day = fit_day
        self.seed = seed
        self.shards = shards

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return -(-len(self.users) // self.sampling.batch_users)

    def batches(self, epoch: int, first: int = 0) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches from step `first` on; what came before changes nothing in them."""
        rng = np.random.default_rng([self.seed, epoch])
        # Users of like length share a batch, so little of it is padding; the noise mixes neighbours every epoch.
        sizes = self.sizes
        order = np.argsort(sizes + rng.uniform(-0.5, 0.5, len(sizes)) * (1 + 0.2 * sizes), kind="stable")
        size = self.sampling.batch_users
        steps = rng.permutation(len(self))
        for step in range(first, len(steps)):
            rows = order[steps[step] * size : (steps[step] + 1) * size]
            batch = self._batch(self.users[rows].tolist(), np.random.default_rng([self.seed, epoch, step]))
            # Every rank draws the whole batch and keeps its part, so the draws are those of one process.
            yield batch if self.shards is None else batch.part(self.shards.rank, self.shards.count)

    def _batch(self, users: list[int], rng: np.random.Generator) -> TrainingBatch:
        known = (newest(self.histories[user], self.sampling) for user in users)
        chosen = [self._cut(self._with_splits(history, rng), rng) for history in known]
        return collate(chosen, self.sampling, fit_day=self.fit_day, rng=rng)

    def _cut(self, history: History, rng: np.random.Generator) -> History:
        """Return the history up to a random basket, where an epoch predicts one basket a user."""
        if self.sampling.points != "sampled":
            return history
        last = int(rng.integers(1, len(history)))
        return History(history.items[: history.start[last + 1]], history.start[: last + 2], history.days[: last + 1])

    def _with_splits(self, history: History, rng: np.random.Generator) -> History:
        """Return the history with some baskets split; one without a second basket always has its only one split."""
        sizes = np.diff(history.start)
        chosen = (rng.random(len(history)) < self.sampling.split_share) & (sizes > 1)
        if len(history) == 1:
            chosen[:] = True
        for basket in np.flatnonzero(chosen)[::-1].tolist():
            history = history.split(basket, rng)
        return newest(history, self.sampling)


def collate(
    histories: Sequence[History], sampling: Sampling, *, fit_day: int, rng: np.random.Generator
) -> TrainingBatch:
    """Return the batch of these histories, whose last baskets are only predicted and never read.

    Args:
        histories: cut to what the encoder sees and one basket more.
    """
    read = [History(h.items[: h.start[-2]], h.start[:-1], h.days[:-1]) for h in histories]
    keep = rng.random(sum(len(h.items) for h in read)) >= sampling.item_dropout
    inputs = encoder_input(read, flatten=sampling.flatten, keep=keep)

    every = sampling.points == "all"
    points = max(len(history) for history in read) if every else 1
    shape = (len(histories), points)
    counts, lengths = (np.array(sizes) for sizes in zip(*((len(h), len(h.items)) for h in histories), strict=True))
    user = np.repeat(np.arange(len(histories)), counts)
    basket = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    days = np.concatenate([history.days for history in histories])
    # The baskets that are predicted: all after the first, or the last alone.
    point = basket - (1 if every else counts[user] - 1)
    asked = np.flatnonzero(point >= 0)
    at = user[asked], point[asked]
    limit, day = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    same_day, weight = np.zeros(shape), np.zeros(shape)
    limit[at], day[at] = basket[asked] - 1, days[asked]
    same_day[at] = days[asked] == days[asked - 1]
    half_life = sampling.half_life_days
    weight[at] = 1.0 if half_life is None else 0.5 ** ((fit_day - days[asked]) / half_life)

    items = np.concatenate([history.items for history in histories])
    ends = np.concatenate([history.start[1:] for history in histories])
    sizes = np.diff(ends + np.repeat(np.cumsum(lengths) - lengths, counts), prepend=0)
    bought = np.repeat(np.arange(len(user)), sizes)
    seen = _seen_before(items, user[bought], basket[bought])
    target = point[bought] >= 0
    item, owner = items[target], (user * points + point)[bought[target]]
    item_weight = np.where(seen[target], sampling.repeat_weight, 1.0)
    totals = np.bincount(owner, item_weight, minlength=len(histories) * points)
    # A basket of repeats only teaches nothing where repeats have no weight.
    weight *= (totals > 0).reshape(shape)
    item_weight = item_weight / np.maximum(totals, 1e-9)[owner]
    return TrainingBatch(
        inputs=inputs,
        limit=torch.from_numpy(limit),
        same_day=torch.from_numpy(same_day).float(),
        point_weight=torch.from_numpy(weight / max(weight.sum(), 1e-9)).float(),
        prior_day=torch.from_numpy(day - rng.integers(0, sampling.prior_delay_days + 1, shape)),
        target_point=torch.from_numpy(owner),
        target_item=torch.from_numpy(item),
        target_weight=torch.from_numpy(item_weight).float(),
        sampled=torch.from_numpy(_systematic_sample(item, owner, item_weight, shape, sampling.targets, rng)),
    )


def newest(history: History, sampling: Sampling) -> History:
    """Return as much as the encoder sees before the last basket, and that basket."""
    if sampling.flatten:
        return history.newest_items(sampling.max_positions + int(history.start[-1] - history.start[-2]))
    return history.tail(sampling.max_positions + 1)


def newest_sizes(histories: Histories, sampling: Sampling) -> NDArray[np.int32]:
    """Return how many baskets `newest` leaves of each user, 0 for one that has nothing to be predicted."""
    sizes = histories.sizes()
    for low in range(0, len(histories), BLOCK):
        own = sizes[low : low + BLOCK]
        first = histories.first[low : low + len(own)]
        end, start = first + own, histories.start
        alone = (own == 1) & (start[end] - start[first] > 1) & (sampling.split_share > 0)
        if sampling.flatten:
            newest_event = start[np.maximum(end - 1, 0)] - sampling.max_positions
            kept = end - np.maximum(np.searchsorted(start, newest_event, side="right") - 1, first)
        else:
            kept = np.minimum(own, sampling.max_positions + 1)
        sizes[low : low + BLOCK] = np.where((own > 1) | alone, kept, 0)
    return sizes


def _systematic_sample(
    item: Ints, owner: Ints, weight: NDArray[np.float64], shape: tuple[int, int], size: int, rng: np.random.Generator
) -> Ints:
    """Return `size` items a point, each drawn in proportion to its weight, spread over the point's basket."""
    points = shape[0] * shape[1]
    count = np.bincount(owner, minlength=points)
    start = np.cumsum(count) - count
    # Shuffled within its point: neighbours on an order sheet are alike, and must not be each other's rivals.
    order = np.lexsort((rng.random(len(item)), owner))
    running = np.concatenate([[0.0], np.cumsum(weight[order])])
    total = running[start + count] - running[start]
    position = (np.arange(size) + rng.random((points, 1))) / size
    drawn = np.searchsorted(running, running[start][:, None] + position * total[:, None], side="right") - 1
    drawn = np.clip(drawn, start[:, None], np.maximum(start + count - 1, start)[:, None])
    drawn = np.minimum(drawn, len(item) - 1)
    sampled: Ints = item[order][drawn].reshape(*shape, size)
    return sampled


def _seen_before(items: Ints, user: Ints, basket: Ints) -> NDArray[np.bool_]:
    """Return, for each event, whether an earlier basket of the user has the item."""
    _, pair = np.unique(user * (items.max(initial=0) + 1) + items, return_inverse=True)
    first = np.full(len(items), len(items))
    np.minimum.at(first, pair, basket)
    return basket > first[pair]
