"""What a policy learns from: users at a point of their past, paths sampled for them, and how much better each was.

Axes: `user` rows of a batch, `path` sampled for a user, `step` of a path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sidrec.systems.batches import Sampling, TrainingBatch, collate, newest
from sidrec.systems.history import Histories, History
from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig
from sidrec.systems.reg4rec.horizon import Windows, path_rewards, window, windows_of
from sidrec.systems.reg4rec.losses import Tables
from sidrec.systems.reg4rec.model import Reg4RecModel
from sidrec.systems.reg4rec.rollout import Start, Walk, walk
from sidrec.training.device import device_of
from sidrec.training.grpo import group_advantages


@dataclass(frozen=True, slots=True)
class Points:
    """Users, each before one of the own baskets, and the baskets from there on."""

    batch: TrainingBatch
    windows: Windows

    def to(self, device: torch.device) -> "Points":
        """Return the same points on another device."""
        return Points(self.batch.to(device), self.windows.to(device))

    def start(self, model: Reg4RecModel, tables: Tables) -> Start:
        """Return where the paths of these points begin."""
        memory = model.encode(self.batch.inputs, tables.codes)
        return Start(memory, self.batch.limit, tables.prior, self.batch.prior_day)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Points, paths that the policy took from there, and their advantages."""

    points: Points
    walk: Walk
    advantages: Float[Tensor, "user path"]
    reward: Float[Tensor, ""]


class RolloutSet:
    """Rounds of rollouts: users and points are decided by (seed, round, step), paths by torch's random state.

    Each rollout is given `updates` times in a row. A run that is resumed between two of them samples it anew.

    Args:
        histories: baskets from day `end` on are never looked at.
    """

    def __init__(
        self,
        histories: Sequence[History],
        sampling: Sampling,
        config: Reg4RecAlignmentConfig,
        *,
        end: int,
        seed: int,
        model: Reg4RecModel,
        tables: Tables,
    ) -> None:
        self.histories = Histories.of(histories).before(end)
        self.users = np.flatnonzero(self.histories.sizes() > 1).astype(np.int32)
        self.sampling = replace(sampling, points="last", split_share=0.0)
        self.config, self.end, self.seed = config, end, seed
        self.model, self.tables = model, tables

    def __len__(self) -> int:
        """Return the number of steps in a round."""
        users = min(self.config.users_per_round, len(self.users))
        return -(-users // self.config.batch_users) * self.config.updates

    def batches(self, epoch: int, first: int = 0) -> Iterator[Rollout]:
        """Yield a round's rollouts from step `first` on."""
        config = self.config
        rows = np.random.default_rng([self.seed, epoch]).permutation(len(self.users))[: config.users_per_round]
        for number in range(first // config.updates, len(self) // config.updates):
            chosen = rows[number * config.batch_users : (number + 1) * config.batch_users]
            points = self.points(chosen.tolist(), np.random.default_rng([self.seed, epoch, number]))
            rollout = self.sampled(points.to(device_of(self.model)))
            done = first % config.updates if number == first // config.updates else 0
            for _ in range(config.updates - done):
                yield rollout

    def points(self, rows: Sequence[int], rng: np.random.Generator, *, newest_only: bool = False) -> Points:
        """Return the users of these rows before one of their baskets after the first: a random one, or the newest."""
        histories, windows = [], []
        for user in self.users[rows].tolist():
            history = self.histories[user]
            basket = len(history) - 1 if newest_only else int(rng.integers(1, len(history)))
            windows.append(window(history, basket, horizon=self.config.horizon, decay=self.config.decay, end=self.end))
            cut = history.start[: basket + 2]
            histories.append(newest(History(history.items[: cut[-1]], cut, history.days[: basket + 1]), self.sampling))
        batch = collate(histories, self.sampling, fit_day=self.end, rng=rng)
        return Points(batch, windows_of(windows))

    @torch.no_grad()
    def sampled(self, points: Points) -> Rollout:
        """Return paths from these points by the policy as it is now."""
        config = self.config
        taken = walk(
            self.model,
            points.start(self.model, self.tables),
            slot_temperature=config.slot_temperature,
            samples=config.group_size,
        )
        rewards = path_rewards(
            taken.tokens, taken.category, points.windows, self.tables.codes, self.tables.category, config
        )
        return Rollout(points, taken, group_advantages(rewards), rewards.mean())
