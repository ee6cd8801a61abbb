"""Validation of the averaged weights: training does not notice it, the best weights are kept, and it can end a run."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sidrec.quantization.sharding import Shards
from sidrec.training.device import device_of

Weights = dict[str, Shaped[Tensor, "..."]]


class Validation:
    """The validations of one run.

    Args:
        measure: bigger is better; None never validates. Over several ranks each calls it, and rank 0's value counts.
        every: epochs between two validations, and the last epoch has one too; 0 never validates.
        patience: validations in a row without a better one after which training ends; 0 never ends it.
    """

    def __init__(self, measure: Callable[[], float] | None, *, every: int, patience: int, shards: Shards) -> None:
        self.measure, self.every, self.patience, self.shards = measure, every, patience, shards
        self.best: Weights = {}
        self.best_value: float | None = None
        self.best_epoch = 0
        self.since_best = 0

    def look(self, module: nn.Module, average: Weights, epoch: int, *, last: bool) -> float | None:
        """Return the averaged weights' value and keep them if they are the best; None where no validation is due."""
        if self.measure is None or not self.every or (epoch % self.every and not last):
            return None
        with holding(module, average):
            own = torch.tensor(self.measure(), dtype=torch.float64, device=device_of(module))
        value = float(self.shards.broadcast(own))
        # Of equal ones the first is kept; not a number is never better.
        if not math.isnan(value) and (self.best_value is None or value > self.best_value):
            self.best = {name: tensor.clone() for name, tensor in average.items()}
            self.best_value, self.best_epoch, self.since_best = value, epoch, 0
        else:
            self.since_best += 1
        return value

    @property
    def spent(self) -> bool:
        """Whether there have been `patience` validations in a row without a better one."""
        return 0 < self.patience <= self.since_best

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the best weights."""
        return {"best_value": self.best_value, "best_epoch": self.best_epoch, "since_best": self.since_best}

    def restore(self, best: Weights, state: dict[str, Any]) -> None:
        """Go on where a checkpoint's run was."""
        self.best = {name: tensor.clone() for name, tensor in best.items()}
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        self.since_best = state["since_best"]


@contextmanager
def holding(module: nn.Module, weights: Weights) -> Iterator[None]:
    """Let `module` hold other weights, in eval mode and without gradients; afterwards all is as it was.

    All is its weights and buffers, the mode of each of its parts and torch's random states.
    """
    live = {name: value.detach().clone() for name, value in module.state_dict().items()}
    modes = [(part, part.training) for part in module.modules()]
    device = device_of(module)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.load_state_dict(weights)
        module.eval()
        try:
            yield
        finally:
            module.load_state_dict(live)
            for part, mode in modes:
                part.training = mode
