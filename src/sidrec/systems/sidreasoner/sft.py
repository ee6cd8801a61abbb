"""The supervised stages, on the loop that every system trains on: next tokens of what is to be learnt, and no others.

Axes: `row` samples of a batch, `pos` positions, `learnt` tokens with a loss.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sidrec.quantization.sharding import Shards
from sidrec.systems.sidreasoner.adapters import adapted
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.batches import TokenBatch, TokenBatches
from sidrec.systems.sidreasoner.config import SIDReasonerActivationConfig, SIDReasonerTrainingConfig
from sidrec.systems.sidreasoner.encoding import Sample
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.device import device_of
from sidrec.training.fully_sharded import shard_weights, whole_state
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import LoopConfig, train
from sidrec.training.parallel import check_weights


@dataclass(frozen=True, slots=True)
class Stage:
    """What of a stage its own settings say; the rest is as in stage 1."""

    name: str
    epochs: int
    tokens_per_batch: int
    accumulate: int
    learning_rate: float
    schedule: Any
    warmup_share: float

    @classmethod
    def of(cls, name: str, config: SIDReasonerTrainingConfig | SIDReasonerActivationConfig) -> "Stage":
        """Return the stage of either section."""
        return cls(
            name,
            config.epochs,
            config.tokens_per_batch,
            config.accumulate,
            config.learning_rate,
            config.schedule,
            config.warmup_share,
        )


def fit_stage(
    backbone: Backbone,
    samples: Sequence[Sample],
    stage: Stage,
    training: SIDReasonerTrainingConfig,
    checkpoints: Checkpoints,
    *,
    seed: int,
    threads: int,
    validate: Callable[[], float] | None,
    logs: TrainingLogs | None = None,
    lora_rank: int = 0,
    shards: Shards | None = None,
) -> list[dict[str, Any]]:
    """Return one log row an epoch; the backbone then holds the best weights of the stage, on the CPU, in eval mode.

    Args:
        validate: of the backbone as it then is; bigger is better.
        lora_rank: of the adapters that learn in place of the weights; 0 is none.
        shards: ranks that train together, each on a part of every batch; with `training.shard_weights` each also has
            only a part of the weights, their gradients and the optimiser's state.

    Raises:
        CheckFailedError: the ranks do not start with the same weights.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    padding = backbone.tokenizer.pad_token_id
    assert isinstance(padding, int)
    data = TokenBatches(samples, tokens_per_batch=stage.tokens_per_batch, padding=padding, seed=seed, shards=shards)
    config = LoopConfig(
        epochs=stage.epochs,
        learning_rate=stage.learning_rate,
        weight_decay=training.weight_decay,
        warmup_share=stage.warmup_share,
        gradient_clip=training.gradient_clip,
        average_decay=training.average_decay,
        seed=seed,
        threads=threads,
        schedule=stage.schedule,
        validate_every=training.validate_every if validate is not None else 0,
        patience=training.patience,
        precision=training.precision,
        accumulate=stage.accumulate,
    )
    split = training.shard_weights and shards is not None and shards.count > 1
    with adapted(backbone, lora_rank), _learning(backbone, device, shards if split else None) as (loss, refresh):
        log = train(
            loss,
            data,
            lambda batch: {"total": loss(batch)},
            config,
            checkpoints,
            f"train_model: {stage.name}",
            validate=None if validate is None else _after(refresh, validate),
            logs=logs,
            shards=shards,
            size_of=lambda batch: float(batch.count),
        )
    backbone.model.cpu()
    return log


class StageLoss(nn.Module):
    """What a stage minimises, as a module: a model whose weights are split has them in `forward` only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """Return `batch_loss`."""
        return batch_loss(self.model, batch)


@contextmanager
def _learning(
    backbone: Backbone, device: torch.device, shards: Shards | None
) -> Iterator[tuple[StageLoss, Callable[[], None]]]:
    """Give the loss of a model on the device, and what lets the backbone have its weights as they then are.

    It is the backbone's own model, or, split over ranks, a copy whose weights come back when they are asked for.
    """
    if shards is None:
        yield StageLoss(backbone.model.to(device)), lambda: None
        return
    loss = StageLoss(copy.deepcopy(backbone.model).to(device))
    check_weights(loss, shards, "the model at the start")
    shard_weights(loss, loss.model.base_model.layers, shards)

    def refresh() -> None:
        weights = {name.removeprefix("model."): value for name, value in whole_state(loss).items()}
        backbone.model.load_state_dict(weights)
        backbone.model.to(device).eval()

    yield loss, refresh
    refresh()


def _after(refresh: Callable[[], None], validate: Callable[[], float]) -> Callable[[], float]:
    def value() -> float:
        refresh()
        return validate()

    return value


def batch_loss(model: Any, batch: TokenBatch) -> Float[Tensor, ""]:
    """Return the cross-entropy of a batch's tokens to be learnt over their number in the whole batch.

    Only their logits are computed.

    Source: the paper's alignment and activation losses, plain next-token prediction.
    """
    moved = batch.to(device_of(model))
    states = model.base_model(input_ids=moved.tokens, use_cache=False).last_hidden_state
    wanted = moved.learnt[:, 1:]
    logits = model.get_output_embeddings()(states[:, :-1][wanted])
    return cross_entropy(logits.float(), moved.tokens[:, 1:][wanted], reduction="sum") / batch.count


@torch.no_grad()
def mean_loss(backbone: Backbone, samples: Sequence[Sample], *, tokens_per_batch: int) -> float:
    """Return the mean cross-entropy over the learnt tokens of all samples."""
    padding = backbone.tokenizer.pad_token_id
    assert isinstance(padding, int)
    total = count = 0.0
    for batch in TokenBatches(samples, tokens_per_batch=tokens_per_batch, padding=padding, seed=0).batches(0):
        learnt = float(batch.learnt.sum())
        total += learnt * float(batch_loss(backbone.model, batch))
        count += learnt
    return total / count
