"""One loop: batches in, steps out, the weights averaged over the last of them; a killed run ends as if it had not been.

Every draw of a batch is decided by (seed, epoch, step), and torch's random state is in the checkpoint, so where a run
was interrupted cannot be seen in its result on the same machine with the same thread count.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sidrec.progress import track
from sidrec.quantization.sharding import Shards
from sidrec.training.checkpoint import Checkpoints, restore_training, training_tensors, under
from sidrec.training.device import LossTerms, Precision, autocast, compiled, device_of, reproducible
from sidrec.training.fully_sharded import split_like, whole
from sidrec.training.logs import TrainingLogs
from sidrec.training.optim import Schedule, adamw, schedule
from sidrec.training.parallel import Reduction, check_steps, check_weights
from sidrec.training.validation import Validation

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

    epochs: int  # the learning rate's schedule is over all of them, also where patience ends a run earlier
    learning_rate: float
    weight_decay: float
    warmup_share: float
    gradient_clip: float
    average_decay: float
    seed: int
    threads: int
    schedule: Schedule = "cosine"
    validate_every: int = 0  # epochs between two validations, and the last has one too; 0 is never
    patience: int = 0  # validations in a row without a better one after which training ends; 0 never ends it
    precision: Precision = "float32"  # of the losses; weights and optimiser are float32
    compile: bool = False  # the losses, on CUDA only
    accumulate: int = 1  # batches a step; an epoch's last step has what is left, and no step is of two epochs


def train(
    module: nn.Module,
    data: Batches[Batch],
    loss_terms: Callable[[Batch], dict[str, Float[Tensor, ""]]],
    config: LoopConfig,
    checkpoints: Checkpoints,
    label: str,
    *,
    validate: Callable[[], float] | None = None,
    logs: TrainingLogs | None = None,
    shards: Shards | None = None,
    size_of: Callable[[Batch], float] | None = None,
) -> list[dict[str, Any]]:
    """Return one log row an epoch; afterwards `module` holds the averaged weights.

    Where there were validations, it holds those that did best, and the last row names their `best_epoch`. A step
    minimises the mean of its batches' totals, each weighed by its batch's size: with totals that are means over as
    many things, that is the total of all of them as one batch.

    Args:
        data: of several ranks, this one's part of every batch, with losses weighed by the whole batch.
        loss_terms: named terms; `total` is what is minimised. Of a rank's empty part they are zeros, or none.
        label: what the progress line calls this run.
        validate: called while `module` holds the averaged weights, in eval mode; bigger is better.
        logs: where curves go as the run proceeds.
        shards: the ranks that train together; rank 0 writes, and every rank reads what it wrote.
        size_of: how many things a batch's losses are means over, the same on every rank; left out, all are as many.

    Raises:
        CheckFailedError: ranks do not start or do not end with the same weights.
    """
    logs = logs if shards is None or shards.rank == 0 else None
    with reproducible(config.threads, device_of(module)):
        run = _Run(module, data, loss_terms, config, checkpoints, validate, logs, shards or Shards(), size_of)
        try:
            return run.finish(label)
        finally:
            if logs is not None:
                logs.close()


class _Run:
    def __init__(
        self,
        module: nn.Module,
        data: Batches[Any],
        loss_terms: LossTerms,
        config: LoopConfig,
        checkpoints: Checkpoints,
        validate: Callable[[], float] | None,
        logs: TrainingLogs | None,
        shards: Shards,
        size_of: Callable[[Any], float] | None,
    ) -> None:
        self.size_of = size_of or (lambda batch: 1.0)
        self.module, self.data, self.config = module, data, config
        self.checkpoints, self.logs, self.shards = checkpoints, logs, shards
        self.device = device_of(module)
        self.loss_terms = compiled(loss_terms, self.device) if config.compile else loss_terms
        self.optimizer = adamw(
            module.named_parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.reduction = Reduction(module.parameters(), shards)
        self.validation = Validation(validate, every=config.validate_every, patience=config.patience, shards=shards)
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.per_epoch = -(-len(data) // config.accumulate)
        self.total = config.epochs * self.per_epoch
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.sums: dict[str, float | Tensor] = defaultdict(float)
        self.seconds = 0.0
        # Ranks that drop the same units would drop them for more of the batch than one process does.
        torch.manual_seed(config.seed + shards.rank)
        self._resume()
        check_steps(len(data), self.step, shards, self.device)
        check_weights(module, shards, "the model at the start")
        if logs is not None:
            logs.open(self.step)

    def finish(self, label: str) -> list[dict[str, Any]]:
        self.module.train()
        started = time.monotonic() - self.seconds
        steps = self._remaining()
        if self.shards.rank == 0:
            if self.step:
                print(f"{label}: resumed at step {self.step} of {self.total}", file=sys.stderr, flush=True)
            steps = track(steps, label, total=self.total, start=self.step)
        for batches in steps:
            self._update(batches)
            self.seconds = time.monotonic() - started
            if self.step % self.per_epoch == 0:
                self._end_epoch(self.step // self.per_epoch)
                self.seconds = time.monotonic() - started
                self.log[-1]["seconds"] = round(self.seconds, 2)
                if self.validation.spent:
                    break
            if self._checkpoint_due():
                self._save()
        self.module.load_state_dict(self.validation.best or self.average)
        self.module.eval()
        check_weights(self.module, self.shards, "the trained model")
        if self.validation.best:
            self.log[-1]["best_epoch"] = self.validation.best_epoch
        return self.log

    def _remaining(self) -> Iterator[list[Any]]:
        """Yield the batches of each step that is left."""
        most = self.config.accumulate
        for epoch in range(self.step // self.per_epoch, self.config.epochs):
            batches = iter(self.data.batches(epoch, most * (self.step - epoch * self.per_epoch)))
            while step := list(islice(batches, most)):
                yield step

    def _update(self, batches: list[Any]) -> None:
        config = self.config
        rate = config.learning_rate * schedule(
            self.step, total=self.total, warmup_share=config.warmup_share, kind=config.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.reduction.backward(self._weighed(batches))
        nn.utils.clip_grad_norm_(self.module.parameters(), config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        for name, value in terms.items():
            # Kept on the device: reading a value would wait for it at every step.
            self.sums[name] += value.detach().double()
        # The plain mean at first, so that early weights do not linger in the average.
        weight = max(1 - config.average_decay, 1 / self.step)
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                self.average[name].lerp_(value, weight)
        if self.logs is not None:
            self.logs.step(self.step, terms["total"].detach(), rate)

    def _weighed(self, batches: list[Any]) -> Iterator[tuple[float, dict[str, Float[Tensor, ""]]]]:
        """Yield each batch's share of the step and its terms, which are made when they are asked for."""
        sizes = [self.size_of(batch) for batch in batches]
        for batch, size in zip(batches, sizes, strict=True):
            with autocast(self.config.precision, self.device):
                terms = self.loss_terms(batch)
            yield size / sum(sizes), terms

    def _end_epoch(self, epoch: int) -> None:
        means = {name: float(value) / self.per_epoch for name, value in sorted(self.sums.items())}
        self.sums.clear()
        self.log.append({"epoch": epoch, "seconds": 0.0, **means})
        value = self.validation.look(self.module, self.average, epoch, last=epoch == self.config.epochs)
        if value is not None:
            self.log[-1]["validation"] = value
        if self.logs is not None:
            self.logs.epoch(self.step, means, value)

    def _checkpoint_due(self) -> bool:
        if self.step == self.total or self.shards.count == 1:
            return self.step < self.total and self.checkpoints.due()
        # One clock decides: ranks save together.
        due = torch.tensor(self.checkpoints.due(), dtype=torch.uint8, device=self.device)
        return bool(self.shards.broadcast(due))

    def _save(self) -> None:
        tensors = training_tensors(self.module, self.average, self.optimizer, self.shards)
        tensors |= {f"best.{name}": whole(value) for name, value in self.validation.best.items()}
        state = {
            "step": self.step,
            "log": self.log,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "seconds": self.seconds,
            "validation": self.validation.state(),
        }
        if self.shards.rank == 0:
            if self.logs is not None:
                self.logs.flush()
            self.checkpoints.save(self.step, tensors, state)

    def _resume(self) -> None:
        saved = self.checkpoints.load()
        if saved is None:
            return
        tensors, state = saved
        restore_training(tensors, self.module, self.average, self.optimizer, self.shards)
        self.step, self.log, self.seconds = state["step"], state["log"], state["seconds"]
        self.sums.update(state["sums"])
        if "validation" in state:
            self.validation.restore(split_like(self.average, under("best.", tensors)), state["validation"])
