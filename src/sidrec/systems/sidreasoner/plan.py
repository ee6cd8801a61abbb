"""What a fit of SIDReasoner would learn from, counted without a weight, a request to a teacher or a download."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sidrec.data.catalog import Catalog
from sidrec.systems.sidreasoner.config import (
    TINY,
    SIDReasonerActivationConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerTrainingConfig,
    TeacherConfig,
)
from sidrec.systems.sidreasoner.corpus import build_corpus
from sidrec.systems.sidreasoner.items import item_facts
from sidrec.systems.sidreasoner.mixture import Mixture
from sidrec.systems.sidreasoner.points import held_out, points_of
from sidrec.systems.sidreasoner.template_teacher import TemplateTeacher
from sidrec.systems.sidreasoner.tokenizer import train_tokenizer
from sidrec.systems.sidreasoner.vocab import SidVocab
from sidrec.systems.stored_histories import histories_of

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def plan(
    model: SIDReasonerModelConfig,
    corpus: SIDReasonerCorpusConfig,
    training: SIDReasonerTrainingConfig,
    activation: SIDReasonerActivationConfig,
    vocab: SidVocab,
    catalog: Catalog,
    baskets: pl.DataFrame,
    *,
    seed: int,
) -> dict[str, Any]:
    """Return sizes of the vocabulary, requests to the teacher, rows of each task, and what is missing here.

    Rules write the texts that are counted; a teacher writes as many, or fewer where its replies fail their checks.
    Where a fit is given rows to validate by, it learns from the users that are held out here too.
    """
    points, kept = held_out(points_of(histories_of(baskets, catalog)), share=training.held_out_share, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        texts = build_corpus(
            TemplateTeacher(seed),
            corpus,
            item_facts(catalog),
            catalog.popularity.tolist(),
            points,
            vocab,
            Path(scratch) / "replies.jsonl",
            max_history=model.max_history,
            seed=seed,
        )
    lacks = list(missing(model, corpus.teacher, training.general))
    if training.general is not None and not training.general.is_file():
        training = training.model_copy(update={"general": None})
    # Rows are counted and never encoded, so any tokenizer will do.
    mixture = Mixture(train_tokenizer([], 300), vocab, catalog.titles, model.max_history, model.max_tokens)
    rows = mixture.aligning_rows(points, texts, training, seed=seed)
    thinking = len(texts.rationales) if activation.enabled else 0
    return {
        "vocabulary": {"codes_a_level": list(vocab.sizes), "new_tokens": len(vocab.new_tokens())},
        "points": {"learnt_from": len(points), "held_out": len(kept)},
        "requests": {task: said["requests"] for task, said in texts.report["texts"].items()},
        "rows": {
            "stage_1": {task: len(own) for task, own in rows.items()},
            "stage_2a": {"think": thinking, "code_to_code": round(activation.direct_share * thinking)},
        },
        "missing": lacks,
    }


def missing(model: SIDReasonerModelConfig, teacher: TeacherConfig, general: Path | None) -> Iterator[str]:
    """Yield a sentence for each thing that a fit needs and this machine lacks; nothing is asked of a network."""
    if model.backbone != TINY and not model.download and not _is_here(model.backbone):
        yield (
            f"the backbone {model.backbone}: no folder of that name with config.json, tokenizer.json and safetensors, "
            "and none in the hub's cache; set model.backbone to such a folder, or model.download to true"
        )
    # Servers of one's own ask for no key, and speak plain HTTP.
    if teacher.kind == "openai" and teacher.base_url.startswith("https://") and teacher.api_key_env not in os.environ:
        yield f"the teacher's key: {teacher.api_key_env} is not set, and corpus.teacher is {teacher.base_url}"
    if general is not None and not general.is_file():
        yield f"the general chats: no file {general}"


def _is_here(backbone: str) -> bool:
    def has(name: str) -> bool:
        if folder.is_dir():
            return (folder / name).is_file()
        try:
            return isinstance(try_to_load_from_cache(backbone, name), str)
        except HFValidationError:
            # A path, and no name on the hub.
            return False

    folder = Path(backbone)
    return has("config.json") and has("tokenizer.json") and any(map(has, _WEIGHTS))
