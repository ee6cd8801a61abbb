"""A small regression whose batches, losses and right answer are plain to see."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sidrec.training.checkpoint import Checkpoints
from sidrec.training.loop import LoopConfig

Batch = tuple[Tensor, Tensor, Tensor]


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


@dataclass
class Rows:
    """Batches of (inputs, targets, weights); a batch's weights sum to 1 over all ranks, and each has its rows of it.

    The last batch of three has one row, so that of two ranks the second has an empty part. `epoch` is the newest
    batch's.
    """

    rank: int = 0
    ranks: int = 1
    epoch: int = 0

    def __len__(self) -> int:
        return 3

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        for step in range(first, 3):
            self.epoch = epoch
            generator = torch.Generator().manual_seed(100 * epoch + step)
            size = 1 if step == 2 else 8
            inputs = torch.rand(size, 4, generator=generator)
            targets = inputs.sum(dim=1, keepdim=True) + 0.1 * torch.rand(size, 1, generator=generator)
            weights = torch.rand(size, 1, generator=generator)
            batch = (inputs, targets, weights / weights.sum())
            yield tuple(part[self.rank :: self.ranks] for part in batch)  # type: ignore[misc]


def model(*, dropout: float = 0.0) -> nn.Sequential:
    """Return the same small network every time; what was drawn before does not matter."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))


def terms_of(module: nn.Module) -> Callable[[Batch], dict[str, Tensor]]:
    """Return the losses of a batch: the weighted squared error, and a tenth of the weighted size of the answer."""

    def terms(batch: Batch) -> dict[str, Tensor]:
        inputs, targets, weights = (part.to(next(module.parameters()).device) for part in batch)
        answers = module(inputs)
        error, size = (weights * (answers - targets).square()).sum(), (weights * answers.abs()).sum()
        return {"error": error, "size": size, "total": error + 0.1 * size}

    return terms


def killed_at(step: int, terms: Callable[[Batch], dict[str, Tensor]]) -> Callable[[Batch], dict[str, Tensor]]:
    """Return losses during whose call number `step` (from 1) the process dies."""
    calls = iter(range(1, step + 1))

    def deadly(batch: Batch) -> dict[str, Tensor]:
        if next(calls) == step:
            raise Killed
        return terms(batch)

    return deadly


def config(**settings: object) -> LoopConfig:
    """Return a short run's settings, some of them changed."""
    short: dict[str, object] = {
        "epochs": 6,
        "learning_rate": 0.03,
        "weight_decay": 0.01,
        "warmup_share": 0.1,
        "gradient_clip": 1.0,
        "average_decay": 0.8,
        "seed": 3,
        "threads": 1,
    }
    return LoopConfig(**{**short, **settings})  # type: ignore[arg-type]


def never(folder: Path) -> Checkpoints:
    """Return checkpoints that are never due."""
    return Checkpoints(folder / "none", minutes=1e9)


def weights(module: nn.Module) -> Tensor:
    """Return all of a module's weights in a row."""
    return torch.cat([value.detach().flatten() for value in module.state_dict().values()])
