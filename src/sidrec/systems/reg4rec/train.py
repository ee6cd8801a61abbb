"""REG4Rec is fitted twice, as every system with a repeat path is: without the last month, and then on everything."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from sidrec import files
from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.base import MODEL, WEIGHTS, ExplainingModel, FitInputs, Query, RankingModel
from sidrec.systems.batches import Sampling, TrainingBatch, TrainingSet
from sidrec.systems.config import RepeatConfig
from sidrec.systems.held_out import learn_repeat_path, path_of
from sidrec.systems.history import Histories
from sidrec.systems.reg4rec.align import align
from sidrec.systems.reg4rec.carry import carry_model
from sidrec.systems.reg4rec.categories import Categories, fit_categories, item_vectors
from sidrec.systems.reg4rec.config import (
    Reg4RecAlignmentConfig,
    Reg4RecModelConfig,
    Reg4RecSearchConfig,
    Reg4RecTrainingConfig,
)
from sidrec.systems.reg4rec.losses import Tables, losses
from sidrec.systems.reg4rec.model import Reg4RecModel
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.reg4rec.probe import probe
from sidrec.systems.reg4rec.rank import (
    CENTRES,
    FORMAT,
    KIND,
    MASSES,
    OF_ITEM,
    Reg4RecRanker,
    categories_in,
    load_model,
)
from sidrec.systems.repeat import RepeatPath
from sidrec.systems.stored_histories import drop_histories, stored_histories
from sidrec.systems.validation_rows import EPOCH, drawn_rows
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import LoopConfig, train
from sidrec.training.parallel import shards_from_environment

# The supervised stage is judged by the plain search: no weight of it depends on how answers are searched later.
PLAIN = Reg4RecSearchConfig.model_validate({})


@dataclass(frozen=True)
class Reg4RecSystem:
    """REG4Rec (arXiv 2508.15308), configured."""

    parts: ClassVar[tuple[str, ...]] = (WEIGHTS, MODEL)

    model: Reg4RecModelConfig
    training: Reg4RecTrainingConfig
    alignment: Reg4RecAlignmentConfig
    repeat: RepeatConfig
    search: Reg4RecSearchConfig

    def fit(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model`, the supervised one; checkpoints of a killed fit lie in `folder/checkpoints`.

        With `inputs.start`, the fit goes on from those weights for `fine_tune_epochs` and keeps their repeat path.
        With `inputs.validate`, it may end early, with the weights that did best. Under torchrun every rank calls this
        with the same inputs, they train on parts of each batch, and rank 0 writes. TensorBoard files lie in
        `folder/logs`.
        """
        shards = shards_from_environment()
        world = _World.of(inputs, self.model, stored_histories(inputs.baskets, inputs.catalog, folder, shards))
        checkpoints = folder / "checkpoints"
        path, held_out_summary = None, {}
        epochs = self.training.epochs if inputs.start is None else self.training.fine_tune_epochs
        held_out_file = folder / "repeat_path.json"
        if inputs.start is not None:
            path = path_of(files.read_json(inputs.start / MODEL)["repeat"])
        elif self.repeat.enabled:
            if held_out_file.exists():
                held_out_summary = files.read_json(held_out_file)
            else:
                held_out_summary = self._fit_repeat(inputs, world, checkpoints)
                files.write_json_atomic(held_out_file, held_out_summary)
            path = path_of(held_out_summary["path"])
        generator = self._generator(inputs, world)
        log, masses = self._train(
            generator,
            inputs,
            world,
            world.fit_day,
            epochs,
            checkpoints / "final",
            "train_model: fit",
            logs=TrainingLogs(folder / "logs" / "fit"),
            validate=inputs.validate,
        )
        if shards is None or shards.rank == 0:
            write_model(folder / "model", generator, masses, world.categories, world.category, path, log)
            Checkpoints(checkpoints, minutes=0).clear()
            drop_histories(folder)
        return {
            "parameters": sum(parameter.numel() for parameter in generator.parameters()),
            "epochs": log[-1]["epoch"],
            "loss": log[-1],
            "train_seconds": log[-1]["seconds"],
            "repeat": held_out_summary,
            "categories": {"of": "metadata" if world.categories.names else "clusters", "number": world.num_categories},
        }

    def carry(self, source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
        """Write `folder/model`: the same weights, which know every code that a new item can have."""
        return carry_model(source, before, catalog, folder)

    def align(self, model: Path, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model_aligned`: the policy after GRPO, or the supervised model where that is better."""
        return align(
            model,
            inputs,
            folder,
            training=self.training,
            alignment=self.alignment,
            search=self.search,
            sampling=self.sampling(inputs.catalog.num_codes),
        )

    def open(self, folder: Path, catalog: Catalog) -> Reg4RecRanker:
        """Return the ranker in `folder`."""
        return Reg4RecRanker.open(folder, catalog, self.search)

    def explaining(self, model: RankingModel) -> ExplainingModel:
        """Return an opened model that keeps the paths to what it recommends."""
        from sidrec.systems.reg4rec import explain

        assert isinstance(model, Reg4RecRanker)
        return explain.ExplainingModel(model)

    def probe(self, model: RankingModel, queries: Sequence[Query], targets: Sequence[int]) -> dict[str, Any]:
        """Return how often codes and categories are right along the true tokens of known next items."""
        assert isinstance(model, Reg4RecRanker)
        return probe(model, queries, torch.tensor(targets))

    def sampling(self, num_slots: int) -> Sampling:
        """Return how the supervised stage draws its batches."""
        training = self.training
        return Sampling(
            batch_users=training.batch_users,
            targets=training.targets_per_basket,
            item_dropout=training.item_dropout,
            max_positions=self.model.max_positions,
            flatten=num_slots if self.model.flatten else 0,
            repeat_weight=training.repeat_weight,
            half_life_days=training.half_life_days,
            prior_delay_days=training.prior_delay_days,
            split_share=training.split_share,
            points=training.points,
        )

    def _generator(self, inputs: FitInputs, world: "_World") -> Reg4RecModel:
        torch.manual_seed(inputs.seed)
        if inputs.start is not None:
            generator, _, _ = load_model(inputs.start)
            return generator
        return Reg4RecModel(self.model, num_slots=world.sets.num_slots, codebook_size=world.sets.codebook_size)

    def _train(
        self,
        generator: Reg4RecModel,
        inputs: FitInputs,
        world: "_World",
        end: int,
        epochs: int,
        checkpoints: Path,
        label: str,
        *,
        logs: TrainingLogs,
        validate: Callable[[RankingModel], float] | None = None,
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the log and the items' masses of the day `end`; the generator then holds the averaged weights."""
        shards = shards_from_environment()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        histories = world.histories.before(end)
        prior = CodePrior.fit(histories, world.sets, self.training, last_day=end)
        today = prior.masses[prior.on(torch.tensor(end))]
        data = TrainingSet(histories, self.sampling(world.sets.num_slots), fit_day=end, seed=inputs.seed, shards=shards)
        there = Tables(world.sets.codes, world.category, prior).to(device)
        generator.to(device)

        def terms(batch: TrainingBatch) -> dict[str, Tensor]:
            return losses(generator, batch.to(device), there, self.training)

        def value() -> float:
            assert validate is not None
            # Rankers answer on the CPU.
            model = generator if device.type == "cpu" else copy.deepcopy(generator).cpu()
            return validate(Reg4RecRanker.of(model, inputs.catalog, world.sets, PLAIN, today, None))

        log = train(
            generator,
            data,
            terms,
            self._loop(inputs, epochs),
            Checkpoints(checkpoints, minutes=self.training.checkpoint_minutes),
            label,
            validate=None if validate is None else value,
            logs=logs,
            shards=shards,
        )
        generator.cpu()
        return log, today

    def _loop(self, inputs: FitInputs, epochs: int) -> LoopConfig:
        training = self.training
        return LoopConfig(
            epochs=epochs,
            learning_rate=training.learning_rate if inputs.start is None else training.fine_tune_learning_rate,
            weight_decay=training.weight_decay,
            warmup_share=training.warmup_share,
            gradient_clip=training.gradient_clip,
            average_decay=training.average_decay,
            seed=inputs.seed,
            threads=inputs.threads,
            schedule=training.schedule,
            validate_every=training.validate_every,
            patience=training.patience,
            precision=training.precision,
        )

    def _fit_repeat(self, inputs: FitInputs, world: "_World", checkpoints: Path) -> dict[str, Any]:
        """Return the repeat path learnt on the last days of the fit period, with a generator that ended before them."""
        cut = world.fit_day - self.training.validation_days
        generator = self._generator(inputs, world)
        epochs = self.training.held_out_epochs or self.training.epochs
        log, masses = self._train(
            generator,
            inputs,
            world,
            cut,
            epochs,
            checkpoints / "held_out",
            "train_model: held-out fit",
            logs=TrainingLogs(checkpoints.parent / "logs" / "held_out"),
        )
        ranker = Reg4RecRanker.of(generator, inputs.catalog, world.sets, PLAIN, masses, None)
        learnt = learn_repeat_path(
            ranker,
            ranker.score,
            drawn_rows(inputs.training_set, inputs.seed),
            inputs.catalog,
            world.histories.before(cut),
            cut=cut,
            half_life_days=self.repeat.half_life_days,
        )
        return {**learnt, "epochs": epochs, "train_seconds": log[-1]["seconds"]}


@dataclass(frozen=True)
class _World:
    """What both fits look at."""

    sets: TokenSets
    histories: Histories
    categories: Categories
    category: Tensor
    fit_day: int

    @property
    def num_categories(self) -> int:
        return len(self.categories.centres)

    @classmethod
    def of(cls, inputs: FitInputs, config: Reg4RecModelConfig, histories: Histories) -> "_World":
        codebooks = Codebook.load(inputs.codebook).quantizer.codebooks
        sets = TokenSets.of(inputs.catalog.codes, codebooks.shape[1])
        vectors = item_vectors(sets.codes, codebooks)
        paths = inputs.catalog.categories
        if inputs.start is None:
            found = fit_categories(config.categories, paths, vectors, config.num_categories, seed=inputs.seed)
        else:
            # Its head knows these: other ones under its numbers would be learnt against what it says.
            _, header, tensors = load_model(inputs.start)
            found = categories_in(header, tensors)
        return cls(sets, histories, found, found.of(paths, vectors), (inputs.fit_end - EPOCH).days)


def write_model(
    folder: Path,
    generator: Reg4RecModel,
    masses: Tensor,
    categories: Categories,
    of_item: Tensor,
    path: RepeatPath | None,
    log: Sequence[dict[str, Any]],
) -> None:
    """Write a model's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**generator.state_dict(), MASSES: masses, CENTRES: categories.centres, OF_ITEM: of_item}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    header = {
        "kind": KIND,
        "format": FORMAT,
        "model": generator.config.model_dump(mode="json"),
        "num_slots": generator.num_slots,
        "codebook_size": generator.codebook_size,
        "repeat": None if path is None else asdict(path),
        "categories": list(categories.names),
        "aligned": False,
    }
    files.write_json_atomic(folder / MODEL, header)
    # Times differ from run to run, and what lies in a model's folder decides its bundle's id.
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in log]
    files.write_text_atomic(
        folder / "training_log.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    )
