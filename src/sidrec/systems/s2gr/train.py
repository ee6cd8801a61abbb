"""S²GR is fitted twice: without the last month, to learn how users repeat, and then from scratch on everything."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from sidrec import files
from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.decoding.beam import score_items
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.base import MODEL, WEIGHTS, ExplainingModel, FitInputs, Query, RankingModel, link_unaligned
from sidrec.systems.batches import Sampling, TrainingBatch, TrainingSet
from sidrec.systems.config import RepeatConfig
from sidrec.systems.held_out import learn_repeat_path, path_of
from sidrec.systems.history import Histories, code_table, has_code
from sidrec.systems.repeat import RepeatPath
from sidrec.systems.s2gr.carry import carry_model
from sidrec.systems.s2gr.clusters import Clusters, cluster_codewords
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.s2gr.losses import Tables, losses
from sidrec.systems.s2gr.model import S2GRModel
from sidrec.systems.s2gr.prior import PopularityPrior
from sidrec.systems.s2gr.probe import probe
from sidrec.systems.s2gr.rank import (
    CLUSTERS,
    FORMAT,
    TRAINING_ONLY,
    S2GRRanker,
    load_answering_weights,
)
from sidrec.systems.s2gr.steps import GeneratorSteps, folded_bias
from sidrec.systems.stored_histories import drop_histories, stored_histories
from sidrec.systems.validation_rows import EPOCH, drawn_rows
from sidrec.training.checkpoint import Checkpoints
from sidrec.training.logs import TrainingLogs
from sidrec.training.loop import LoopConfig, train
from sidrec.training.parallel import shards_from_environment


@dataclass(frozen=True)
class S2GRSystem:
    """S²GR, configured."""

    parts: ClassVar[tuple[str, ...]] = (WEIGHTS, MODEL)

    codebook: S2GRCodebookConfig
    model: S2GRModelConfig
    training: S2GRTrainingConfig
    repeat: RepeatConfig

    def fit(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model`; checkpoints of a killed fit lie in `folder/checkpoints`.

        With `inputs.start`, the fit goes on from those weights for `fine_tune_epochs` and keeps their repeat path.
        With `inputs.validate`, it may end early, with the weights that did best. Under torchrun every rank calls this
        with the same inputs, they train on parts of each batch, and rank 0 writes. TensorBoard files lie in
        `folder/logs`.
        """
        shards = shards_from_environment()
        trie = PrefixTrie.from_codes(inputs.catalog.codes)
        codewords = Codebook.load(inputs.codebook).quantizer.codebooks
        clusters = cluster_codewords(codewords, inputs.catalog.codes, self.codebook, seed=inputs.seed)
        histories = stored_histories(inputs.baskets, inputs.catalog, folder, shards)
        fit_day = (inputs.fit_end - EPOCH).days
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
                held_out_summary = self._fit_repeat(inputs, trie, clusters, histories, fit_day, checkpoints)
                files.write_json_atomic(held_out_file, held_out_summary)
            path = path_of(held_out_summary["path"])
        generator = self._generator(inputs, trie, clusters, inputs.seed)
        log, bias = self._train(
            generator,
            inputs,
            trie,
            clusters,
            histories,
            fit_day,
            epochs,
            checkpoints / "final",
            "train_model: fit",
            logs=TrainingLogs(folder / "logs" / "fit"),
            validate=inputs.validate,
        )
        if shards is None or shards.rank == 0:
            self._write(folder / "model", generator, bias, path, clusters, log)
            Checkpoints(checkpoints, minutes=0).clear()
            drop_histories(folder)
        return {
            "parameters": sum(parameter.numel() for parameter in generator.parameters()),
            "epochs": log[-1]["epoch"],
            "loss": log[-1],
            "train_seconds": log[-1]["seconds"],
            "repeat": held_out_summary,
        }

    def carry(self, source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
        """Write `folder/model`: the same weights, new prefixes starting at their items' popularity."""
        return carry_model(source, before, catalog, folder)

    def align(self, model: Path, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Copy the model: S²GR learns in one stage."""
        return link_unaligned(model, folder, "s2gr has no alignment stage")

    def open(self, folder: Path, catalog: Catalog) -> S2GRRanker:
        """Return the ranker in `folder`."""
        return S2GRRanker.open(folder, catalog)

    def explaining(self, model: RankingModel) -> ExplainingModel:
        """Return an opened model that keeps what it thought before each code."""
        from sidrec.systems.s2gr import explain

        assert isinstance(model, S2GRRanker)
        return explain.ExplainingModel(model)

    def probe(self, model: RankingModel, queries: Sequence[Query], targets: Sequence[int]) -> dict[str, Any]:
        """Return how often codes, and clusters under the thinking tokens, are right along true semantic IDs."""
        assert isinstance(model, S2GRRanker)
        return dict(probe(model, queries, torch.tensor(targets)).summary())

    def _generator(self, inputs: FitInputs, trie: PrefixTrie, clusters: Clusters, seed: int) -> S2GRModel:
        torch.manual_seed(seed)
        generator = S2GRModel(
            self.model,
            codebook_sizes=_codebook_sizes(inputs.catalog, clusters),
            code_dim=clusters.centres.shape[2],
            num_nodes=trie.num_nodes,
        )
        if inputs.start is not None:
            load_answering_weights(generator, inputs.start)
        return generator

    def _train(
        self,
        generator: S2GRModel,
        inputs: FitInputs,
        trie: PrefixTrie,
        clusters: Clusters,
        histories: Histories,
        fit_day: int,
        epochs: int,
        checkpoints: Path,
        label: str,
        *,
        logs: TrainingLogs,
        validate: Callable[[RankingModel], float] | None = None,
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the log and the prefix biases on `fit_day`; the generator then holds the averaged weights."""
        shards = shards_from_environment()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prior = self._prior(histories, trie, fit_day)
        tables = Tables(
            trie=trie,
            ancestors=trie.ancestors,
            codes=code_table(inputs.catalog),
            present=has_code(inputs.catalog).float(),
            clusters=list(clusters.of),
            centres=list(clusters.centres),
            prior=prior,
        )
        sampling = self._sampling(inputs.catalog)
        data = TrainingSet(histories, sampling, fit_day=fit_day, seed=inputs.seed, shards=shards)
        depth = torch.searchsorted(trie.level_start, torch.arange(trie.num_nodes), right=True) - 1
        row = int(prior.on(torch.tensor(fit_day)))
        there = tables.to(device)
        generator.to(device)

        def terms(batch: TrainingBatch) -> dict[str, Tensor]:
            rows = prior.on(batch.prior_day).to(device)
            return losses(generator, batch.to(device), there, rows, shards)

        def value() -> float:
            assert validate is not None
            # Rankers answer on the CPU.
            model = generator if device.type == "cpu" else copy.deepcopy(generator).cpu()
            bias = folded_bias(model, prior.table[row], depth)
            return validate(S2GRRanker.of(model, inputs.catalog, trie, bias, None))

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
        return log, folded_bias(generator, prior.table[row], depth)

    def _prior(self, histories: Histories, trie: PrefixTrie, fit_day: int) -> PopularityPrior:
        training = self.training
        if training.prior == "static":
            return PopularityPrior.static(histories, trie)
        return PopularityPrior.fit(
            histories,
            trie,
            last_day=fit_day,
            window_days=training.prior_window_days,
            smoothing=training.prior_smoothing,
        )

    def _sampling(self, catalog: Catalog) -> Sampling:
        training = self.training
        return Sampling(
            batch_users=training.batch_users,
            targets=training.targets_per_basket,
            item_dropout=training.item_dropout,
            max_positions=self.model.max_positions,
            flatten=catalog.num_codes if self.model.flatten else 0,
            repeat_weight=training.repeat_weight,
            half_life_days=training.half_life_days,
            prior_delay_days=training.prior_delay_days,
            split_share=training.split_share,
            points=training.points,
        )

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
            compile=training.compile,
        )

    def _fit_repeat(
        self,
        inputs: FitInputs,
        trie: PrefixTrie,
        clusters: Clusters,
        histories: Histories,
        fit_day: int,
        checkpoints: Path,
    ) -> dict[str, Any]:
        """Return the repeat path learnt on the last days of the fit period, with a generator that ended before them."""
        cut = fit_day - self.training.validation_days
        earlier = histories.before(cut)
        generator = self._generator(inputs, trie, clusters, inputs.seed)
        epochs = self.training.held_out_epochs or self.training.epochs
        log, bias = self._train(
            generator,
            inputs,
            trie,
            clusters,
            earlier,
            cut,
            epochs,
            checkpoints / "held_out",
            "train_model: held-out fit",
            logs=TrainingLogs(checkpoints.parent / "logs" / "held_out"),
        )
        ranker = S2GRRanker.of(generator, inputs.catalog, trie, bias, None)
        learnt = learn_repeat_path(
            ranker,
            partial(_scores, ranker),
            drawn_rows(inputs.training_set, inputs.seed),
            inputs.catalog,
            earlier,
            cut=cut,
            half_life_days=self.repeat.half_life_days,
        )
        return {**learnt, "epochs": epochs, "train_seconds": log[-1]["seconds"]}

    def _write(
        self,
        folder: Path,
        generator: S2GRModel,
        bias: Tensor,
        path: RepeatPath | None,
        clusters: Clusters,
        log: Sequence[dict[str, Any]],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in generator.state_dict().items() if not name.startswith(TRAINING_ONLY)}
        tables = dict(zip(CLUSTERS, (clusters.of, clusters.centres), strict=True))
        save_file({**kept, **tables, "node_bias": bias}, folder / WEIGHTS)
        header = {
            "kind": "s2gr",
            "format": FORMAT,
            "model": self.model.model_dump(mode="json"),
            "codebook_sizes": generator.codebook_sizes,
            "code_dim": generator.to_code_space.out_features,
            "repeat": None if path is None else asdict(path),
        }
        files.write_json_atomic(folder / MODEL, header)
        # Times differ from run to run, and what lies in a model's folder decides its bundle's id.
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in log]
        files.write_text_atomic(
            folder / "training_log.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        )


def _scores(ranker: S2GRRanker, queries: Sequence[Query], lists: Sequence[Tensor]) -> list[Tensor]:
    steps = GeneratorSteps(ranker.model, ranker.encode(queries))
    return [score_items(steps, ranker.trie, ranker.bias, items) for items in lists]


def _codebook_sizes(catalog: Catalog, clusters: Clusters) -> list[int]:
    """Return the codes of every level; the disambiguation code, where there is one, has as many as it needs."""
    num_levels, size = clusters.of.shape
    sizes = [size] * num_levels
    if catalog.num_codes > num_levels:
        sizes.append(int(catalog.codes[:, -1].max()) + 1)
    return sizes
