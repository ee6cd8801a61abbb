"""SIDReasoner is fitted in stages, each on disk before the next: a corpus, alignment with language, activation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import torch

from sidrec import home
from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import UsageError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.sharding import Shards
from sidrec.systems.base import MODEL, ExplainingModel, FitInputs, Query, RankingModel, link_unaligned
from sidrec.systems.sidreasoner.align import align_backbone
from sidrec.systems.sidreasoner.backbone import LANGUAGE_MODEL, Backbone, load
from sidrec.systems.sidreasoner.carry import carry_model
from sidrec.systems.sidreasoner.config import (
    SIDReasonerActivationConfig,
    SIDReasonerAlignmentConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
)
from sidrec.systems.sidreasoner.corpus import Corpus, build_corpus, teacher_of
from sidrec.systems.sidreasoner.corpus_files import read_corpus, write_corpus
from sidrec.systems.sidreasoner.items import item_facts
from sidrec.systems.sidreasoner.mixture import words_of
from sidrec.systems.sidreasoner.model_files import adopt_weights, open_model, training_log, write_model
from sidrec.systems.sidreasoner.plan import plan
from sidrec.systems.sidreasoner.points import Point, held_out, points_of
from sidrec.systems.sidreasoner.probe import probe
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker, ranker_of, think_text
from sidrec.systems.sidreasoner.sampler import Sampler
from sidrec.systems.sidreasoner.sft import Stage
from sidrec.systems.sidreasoner.stages import Stages
from sidrec.systems.sidreasoner.vllm_engine import VllmWriter, require_vllm
from sidrec.systems.sidreasoner.vocab import SidVocab
from sidrec.systems.stored_histories import histories_of
from sidrec.systems.validation_rows import EPOCH, rows_value
from sidrec.training.parallel import shards_from_environment


@dataclass(frozen=True)
class SIDReasonerSystem:
    """SIDReasoner (arXiv 2603.23183), configured."""

    parts: ClassVar[tuple[str, ...]] = (MODEL, LANGUAGE_MODEL)

    model: SIDReasonerModelConfig
    corpus: SIDReasonerCorpusConfig
    training: SIDReasonerTrainingConfig
    activation: SIDReasonerActivationConfig
    alignment: SIDReasonerAlignmentConfig
    search: SIDReasonerSearchConfig

    def prepare(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/prepared`: the teacher's texts about the users that a fit learns from.

        Replies lie in `folder/replies.jsonl`; those of a served teacher, which cost money, where every run finds them
        (`home.replies_path`). What is there is not asked for again.
        """
        vocab = vocab_of(inputs.catalog, inputs.codebook)
        points, _ = self._points(inputs)
        corpus = self._corpus(inputs, points, vocab, folder)
        write_corpus(folder / "prepared", corpus, vocab)
        return {"points": len(points), **corpus.report}

    def fit(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model`: `model.json` and the language model in a folder of its own.

        With `inputs.start`, words of semantic IDs that moved get their new meaning from those weights on, in
        `fine_tune_epochs` of stage 1; activation is as ever. A corpus that was not prepared is written here, with the
        teacher's replies as `prepare` keeps them; a killed fit keeps its finished stages and the checkpoint of
        the one it was in. With `inputs.validate` a stage keeps the weights whose direct answers did best, else those
        with the least loss on users that it held out. TensorBoard files lie in `folder/logs`. Under torchrun every rank
        calls this with the same inputs, they train on parts of each batch, and rank 0 writes.

        Raises:
            UsageError: its backbone is not here, or ranks would each write the corpus.
            BundleError: the weights to start from are of another system, or have words for other numbers of codes.
        """
        shards = shards_from_environment() or Shards()
        self._check_ranks(inputs, shards)
        vocab = vocab_of(inputs.catalog, inputs.codebook)
        points, kept = self._points(inputs)
        if inputs.prepared is not None:
            corpus = read_corpus(inputs.prepared, points, vocab)
        else:
            corpus = self._corpus(inputs, points, vocab, folder)
        stages = Stages(self.model, self.training, inputs, folder, vocab, shards)
        first_stage = Stage.of("stage_1", self.training)
        if inputs.start is not None:
            epochs, rate = self.training.fine_tune_epochs, self.training.fine_tune_learning_rate
            first_stage = replace(first_stage, epochs=epochs, learning_rate=rate)
        backbone, aligned = stages.run(
            first_stage,
            start=lambda: self._backbone(inputs, vocab, corpus, folder, shards),
            samples=lambda mixture: mixture.aligning(points, corpus, self.training, seed=inputs.seed),
            held_out=lambda mixture: mixture.direct(kept, rows=self.training.held_out_rows, seed=inputs.seed),
        )
        summaries = {"stage_1": aligned}
        if self.activation.enabled and corpus.rationales:
            first = backbone
            backbone, summaries["stage_2a"] = stages.run(
                Stage.of("stage_2a", self.activation),
                start=lambda: first,
                samples=lambda mixture: mixture.activating(
                    corpus, direct_share=self.activation.direct_share, seed=inputs.seed
                ),
                held_out=lambda mixture: mixture.direct(kept, rows=self.training.held_out_rows, seed=inputs.seed),
            )
        log = [{"stage": name, **row} for name, summary in summaries.items() for row in summary["log"]]
        if shards.rank == 0:
            write_model(folder / "model", backbone, self.model, corpus.report["teacher"], log)
        stages.clear()
        return {
            "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
            "epochs": len(log),
            "loss": log[-1],
            "train_seconds": round(sum(summary["log"][-1]["seconds"] for summary in summaries.values()), 1),
            "points": len(points),
            "corpus": corpus.report,
            **summaries,
        }

    def carry(self, source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
        """Write `folder/model`: the same weights, which have a word for every code of the codebook."""
        return carry_model(source, before, catalog, folder)

    def align(self, model: Path, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model_aligned`: the policy after GRPO, or stage 2a's model where that is better.

        Without `inputs.validate`, rows of the training set are ranked, and nothing is learnt from their days.
        """
        if not self.alignment.enabled:
            return link_unaligned(model, folder, "alignment.enabled is false")
        header, backbone = open_model(model, inputs.catalog)
        if header["aligned"]:
            return link_unaligned(model, folder, "the model was carried, and is aligned already")
        value = inputs.validate or rows_value(inputs)
        if value is None:
            return link_unaligned(model, folder, "there are no rows to judge an aligned model by")
        spared = 0 if inputs.validate is not None else self.training.validation_days
        end = (inputs.fit_end - EPOCH).days - spared
        points = points_of([history.before(end) for history in histories_of(inputs.baskets, inputs.catalog)])
        if not points:
            return link_unaligned(model, folder, "no user has two baskets before the rows that it would be judged by")
        backbone.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        sampler = Sampler(
            backbone,
            PrefixTrie.from_codes(inputs.catalog.codes),
            lambda point: think_text(backbone, point.history, max_items=self.model.max_history),
            self.alignment,
            max_tokens=self.model.max_tokens,
        )
        summary = align_backbone(
            backbone,
            sampler,
            points,
            value=lambda: value(self.ranker(backbone, inputs.catalog, self.search)),
            config=self.alignment,
            training=self.training,
            folder=folder,
            seed=inputs.seed,
            threads=inputs.threads,
            lora_rank=self.model.lora_rank,
        )
        if summary["kept"] == "supervised":
            link_unaligned(model, folder, summary["reason"])
        else:
            backbone.model.cpu()
            log = training_log(model)
            log += [{"stage": "stage_2b", "epoch": epoch, **row} for epoch, row in enumerate(summary["rounds"], 1)]
            write_model(folder / "model_aligned", backbone, self.model, header["teacher"], log, aligned=True)
        return summary

    def plan(self, codebook: CodebookConfig, catalog: Catalog, baskets: pl.DataFrame, *, seed: int) -> dict[str, Any]:
        """Return what a fit would learn from and what it lacks on this machine; nothing is fitted or asked for."""
        vocab = SidVocab.of(catalog, num_levels=codebook.num_levels, codebook_size=codebook.codebook_size)
        return plan(self.model, self.corpus, self.training, self.activation, vocab, catalog, baskets, seed=seed)

    def open(self, folder: Path, catalog: Catalog) -> SIDReasonerRanker:
        """Return the ranker in `folder`.

        Raises:
            BundleError: the model is of another system or format, or of another catalogue.
            UsageError: `search.engine` is not installed here.
        """
        if self.search.engine == "vllm":
            require_vllm()
        _, backbone = open_model(folder, catalog)
        ranker = self.ranker(backbone, catalog, self.search)
        if self.search.engine == "own":
            return ranker
        tokens = self.model.max_tokens + self.search.max_rationale_tokens
        return replace(ranker, writer=VllmWriter(folder / LANGUAGE_MODEL, max_tokens=tokens))

    def explaining(self, model: RankingModel) -> ExplainingModel:
        """Return an opened model that keeps its rationales."""
        from sidrec.systems.sidreasoner import explain

        assert isinstance(model, SIDReasonerRanker)
        return explain.ExplainingModel(model)

    def probe(self, model: RankingModel, queries: Sequence[Query], targets: Sequence[int]) -> dict[str, Any]:
        """Return how often codes of the direct mode are right along the true semantic IDs of known next items."""
        assert isinstance(model, SIDReasonerRanker)
        return probe(model, queries, torch.tensor(targets, dtype=torch.int64))

    def ranker(self, backbone: Backbone, catalog: Catalog, search: SIDReasonerSearchConfig) -> SIDReasonerRanker:
        """Return the ranker of a backbone as it is now."""
        return ranker_of(backbone, catalog, search, self.model)

    def _points(self, inputs: FitInputs) -> tuple[list[Point], list[Point]]:
        """Return the points to learn from and those held out: none where there are rows to validate by."""
        points = points_of(histories_of(inputs.baskets, inputs.catalog))
        share = 0.0 if inputs.validate is not None else self.training.held_out_share
        return held_out(points, share=share, seed=inputs.seed)

    def _corpus(self, inputs: FitInputs, points: Sequence[Point], vocab: SidVocab, folder: Path) -> Corpus:
        return build_corpus(
            teacher_of(self.corpus.teacher, seed=inputs.seed),
            self.corpus,
            item_facts(inputs.catalog),
            inputs.catalog.popularity.tolist(),
            points,
            vocab,
            folder / "replies.jsonl" if self.corpus.teacher.kind == "template" else home.replies_path(),
            max_history=self.model.max_history,
            seed=inputs.seed,
        )

    def _backbone(self, inputs: FitInputs, vocab: SidVocab, corpus: Corpus, folder: Path, shards: Shards) -> Backbone:
        if inputs.start is not None:
            return adopt_weights(inputs.start, vocab)
        words = words_of(inputs.catalog.titles, corpus)
        return load(self.model, vocab, words, folder / "stages" / "tiny", seed=inputs.seed, shards=shards)

    def _check_ranks(self, inputs: FitInputs, shards: Shards) -> None:
        if shards.count == 1:
            return
        if inputs.prepared is None:
            raise UsageError(
                f"{shards.count} ranks would each ask the teacher for the corpus",
                next_step="let the step write_corpus write it first, as sidrec run does",
            )
        if self.training.shard_weights and self.model.lora_rank:
            raise UsageError(
                f"training.shard_weights splits what learns over the ranks, and adapters of rank "
                f"{self.model.lora_rank} are too small to be split",
                next_step="leave one of them out: every rank holds a frozen backbone well without",
            )


def vocab_of(catalog: Catalog, codebook: Path) -> SidVocab:
    """Return the vocabulary of a catalogue and the codebook that it was made with."""
    num_levels, size, _ = Codebook.load(codebook).quantizer.codebooks.shape
    return SidVocab.of(catalog, num_levels=num_levels, codebook_size=size)
