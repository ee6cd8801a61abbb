"""The supervised stages one after the other, each on disk before the next: a killed fit keeps the finished ones."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.quantization.sharding import Shards
from sidrec.systems.base import FitInputs
from sidrec.systems.sidreasoner.backbone import Backbone, open_backbone
from sidrec.systems.sidreasoner.config import (
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
)
from sidrec.systems.sidreasoner.encoding import Sample
from sidrec.systems.sidreasoner.mixture import Mixture
from sidrec.systems.sidreasoner.rank import ranker_of
from sidrec.systems.sidreasoner.sft import Stage, fit_stage, mean_loss
from sidrec.systems.sidreasoner.vocab import SidVocab
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.logs import TrainingLogs

# Stages are selected by the plain answer: it is the one that both of them teach.
DIRECT = SIDReasonerSearchConfig.model_validate({})


@dataclass(frozen=True)
class Stages:
    """Runs stages one after the other; a finished one lies in `folder/stages` and is not run again.

    Args:
        shards: the ranks that run them together; rank 0 writes.
    """

    model: SIDReasonerModelConfig
    training: SIDReasonerTrainingConfig
    inputs: FitInputs
    folder: Path
    vocab: SidVocab
    shards: Shards

    def run(
        self,
        stage: Stage,
        *,
        start: Callable[[], Backbone],
        samples: Callable[[Mixture], dict[str, list[Sample]]],
        held_out: Callable[[Mixture], list[Sample]],
    ) -> tuple[Backbone, dict[str, Any]]:
        """Return the backbone after the stage, and what the stage did."""
        done = self.folder / "stages" / stage.name
        if done.is_dir():
            return open_backbone(done, self.vocab), files.read_json(done / "summary.json")
        inputs = self.inputs
        backbone = start()
        mixture = Mixture(
            backbone.tokenizer, self.vocab, inputs.catalog.titles, self.model.max_history, self.model.max_tokens
        )
        made = samples(mixture)
        log = fit_stage(
            backbone,
            [sample for own in made.values() for sample in own],
            stage,
            self.training,
            Checkpoints(self.folder / "checkpoints" / stage.name, minutes=self.training.checkpoint_minutes),
            seed=inputs.seed,
            threads=inputs.threads,
            validate=self._validate(backbone, lambda: held_out(mixture), stage.tokens_per_batch),
            logs=TrainingLogs(self.folder / "logs" / stage.name),
            lora_rank=self.model.lora_rank,
            shards=self.shards,
        )
        summary = {"rows": {task: len(own) for task, own in made.items()}, "log": log}
        if self.shards.rank == 0:
            partial = done.with_name(f".{stage.name}.tmp")
            shutil.rmtree(partial, ignore_errors=True)
            backbone.save(partial)
            files.write_json_atomic(partial / "summary.json", summary)
            partial.rename(done)
        return backbone, summary

    def clear(self) -> None:
        """Remove what only a killed fit needs; of several ranks the last to come here has seen it."""
        self.shards.sizes(0)
        if self.shards.rank:
            return
        shutil.rmtree(self.folder / "stages", ignore_errors=True)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def _validate(
        self, backbone: Backbone, held_out: Callable[[], Sequence[Sample]], tokens_per_batch: int
    ) -> Callable[[], float] | None:
        value, catalog = self.inputs.validate, self.inputs.catalog
        if value is not None:
            return lambda: value(ranker_of(backbone, catalog, DIRECT, self.model))
        rows = held_out()
        if not rows:
            return None
        loss = partial(mean_loss, backbone, rows, tokens_per_batch=tokens_per_batch)
        return lambda: -loss()
