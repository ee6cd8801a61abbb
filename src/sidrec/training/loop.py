"""One loop: batches in, steps out, the weights averaged over the last of them; a killed run ends as if it had not been.

Every draw of a batch is decided by (seed, epoch, step), and torch's random state is in the checkpoint, so where a run
was interrupted cannot be seen in its result on the same machine with the same thread count.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sidrec.progress import track
from sidrec.training.checkpoint import Checkpoints, restore_training, training_tensors
from sidrec.training.optim import adamw, schedule

Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class Batches(Protocol[Batch_co]):
    """A training set as steps."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch_co]:
        """Yield an epoch's batches from step `first` on."""
        ...


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How long, how fast, and how much of the past the averaged weights hold."""

    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    gradient_clip: float
    average_decay: float
    seed: int
    threads: int


def train(
    module: nn.Module,
    data: Batches[Batch],
    loss_terms: Callable[[Batch], dict[str, Tensor]],
    config: LoopConfig,
    checkpoints: Checkpoints,
    label: str,
) -> list[dict[str, Any]]:
    """Return one log row an epoch; afterwards `module` holds the averaged weights.

    Args:
        loss_terms: named terms; `total` is what is minimised.
        label: what the progress line calls this run.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        return _Run(module, data, loss_terms, config, checkpoints).finish(label)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


class _Run:
    def __init__(
        self,
        module: nn.Module,
        data: Batches[Any],
        loss_terms: Callable[[Any], dict[str, Tensor]],
        config: LoopConfig,
        checkpoints: Checkpoints,
    ) -> None:
        self.module, self.data, self.loss_terms = module, data, loss_terms
        self.config, self.checkpoints = config, checkpoints
        self.optimizer = adamw(
            module.named_parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.sums: dict[str, float] = defaultdict(float)
        self.seconds = 0.0
        torch.manual_seed(config.seed)
        saved = checkpoints.load()
        if saved is not None:
            tensors, state = saved
            restore_training(tensors, module, self.average, self.optimizer)
            self.step, self.log, self.seconds = state["step"], state["log"], state["seconds"]
            self.sums.update(state["sums"])

    def finish(self, label: str) -> list[dict[str, Any]]:
        per_epoch = len(self.data)
        total = self.config.epochs * per_epoch
        self.module.train()
        started, before = time.monotonic(), self.seconds
        if self.step:
            print(f"{label}: resumed at step {self.step} of {total}", file=sys.stderr, flush=True)
        for batch in track(self._remaining(per_epoch), label, total=total, start=self.step):
            self._update(batch, total)
            self.seconds = before + time.monotonic() - started
            if self.step % per_epoch == 0:
                means = {name: value / per_epoch for name, value in sorted(self.sums.items())}
                self.log.append({"epoch": self.step // per_epoch, "seconds": round(self.seconds, 2), **means})
                self.sums.clear()
            if self.checkpoints.due() and self.step < total:
                state = {"step": self.step, "log": self.log, "sums": dict(self.sums), "seconds": self.seconds}
                tensors = training_tensors(self.module, self.average, self.optimizer)
                self.checkpoints.save(self.step, tensors, state)
        self.module.load_state_dict(self.average)
        self.module.eval()
        return self.log

    def _remaining(self, per_epoch: int) -> Iterator[Any]:
        for epoch in range(self.step // per_epoch, self.config.epochs):
            yield from self.data.batches(epoch, self.step - epoch * per_epoch)

    def _update(self, batch: Any, total: int) -> None:
        rate = schedule(self.step, total=total, warmup_share=self.config.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate
        terms = self.loss_terms(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        for name, value in terms.items():
            self.sums[name] += float(value.detach())
        # The plain mean at first, so that early weights do not linger in the average.
        weight = max(1 - self.config.average_decay, 1 / self.step)
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                self.average[name].lerp_(value, weight)
