"""Fitting SIDReasoner: the loss falls, answers follow, and where a fit was killed cannot be seen in its model."""

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sidrec import home
from sidrec.errors import BundleError, BusyError, UsageError
from sidrec.process import exclusive
from sidrec.systems.base import FitInputs, Query, RankingModel
from sidrec.systems.sidreasoner.backbone import Backbone, load
from sidrec.systems.sidreasoner.batches import TokenBatches, collate
from sidrec.systems.sidreasoner.config import (
    SIDReasonerActivationConfig,
    SIDReasonerAlignmentConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
)
from sidrec.systems.sidreasoner.corpus import Corpus
from sidrec.systems.sidreasoner.encoding import encode_chat
from sidrec.systems.sidreasoner.mixture import Mixture, words_of
from sidrec.systems.sidreasoner.points import points_of
from sidrec.systems.sidreasoner.sft import Stage, batch_loss, fit_stage, mean_loss
from sidrec.systems.sidreasoner.tasks import title_of_code
from sidrec.systems.sidreasoner.train import SIDReasonerSystem
from sidrec.training.checkpoint import Checkpoints
from tests.sidrec.systems.sidreasoner.chat_server import ChatServer
from tests.sidrec.systems.sidreasoner.world import MODEL, histories, titled, vocab_of

DAY = 86_400
NOTHING = np.zeros(64, dtype=np.bool_)


def system_of(**change: dict[str, Any]) -> SIDReasonerSystem:
    training: dict[str, Any] = {
        "epochs": 2,
        "tokens_per_batch": 2048,
        "learning_rate": 3e-3,
        "rows_per_task": 8,
        "checkpoint_minutes": 60,
    }
    activation: dict[str, Any] = {"tokens_per_batch": 2048, "learning_rate": 1e-3}
    alignment: dict[str, Any] = {
        "group_size": 4,
        "prompts_per_step": 4,
        "steps": 4,
        "validate_every": 2,
        "max_rationale_tokens": 8,
        "learning_rate": 1e-3,
    }
    return SIDReasonerSystem(
        SIDReasonerModelConfig(**{**MODEL.model_dump(), **change.get("model", {})}),
        SIDReasonerCorpusConfig(**{"items": 6, "histories": 8, **change.get("corpus", {})}),
        SIDReasonerTrainingConfig(**training | change.get("training", {})),
        SIDReasonerActivationConfig(**activation | change.get("activation", {})),
        SIDReasonerAlignmentConfig(**alignment | change.get("alignment", {})),
        SIDReasonerSearchConfig(**change.get("search", {})),
    )


def inputs_of(world: Any, seed: int = 0) -> FitInputs:
    return replace(world.inputs(seed), catalog=titled(world))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def theme_query(theme: int) -> Query:
    items = np.arange(3) + 8 * theme
    return Query(items, np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), 99 * DAY, k=5, exclude_seen=False)


def test_a_stage_learns_the_users_themes(world: Any, tmp_path: Path) -> None:
    """Users buy within a theme; after some epochs of the plain recommendation so do the answers, and the loss falls."""
    catalog = titled(world)
    vocab = vocab_of(catalog)
    points = points_of(histories(world))
    nothing = Corpus([], [], [], {})
    backbone = load(MODEL, vocab, words_of(catalog.titles, nothing), tmp_path / "tiny", seed=0)
    mixture = Mixture(backbone.tokenizer, vocab, catalog.titles, 4, 256)
    training = SIDReasonerTrainingConfig(epochs=16, tokens_per_batch=1024, learning_rate=4e-3, average_decay=0.9)
    log = fit_stage(
        backbone,
        mixture.direct(points, rows=400, seed=0),
        Stage.of("stage_1", training),
        training,
        Checkpoints(tmp_path / "checkpoints", minutes=60),
        seed=0,
        threads=1,
        validate=None,
    )
    ranker = system_of().ranker(backbone, catalog, SIDReasonerSearchConfig())
    rankings = ranker.rank([theme_query(theme) for theme in range(8)], beam_width=20, blocked=NOTHING)
    inside = [float((ranking.items // 8 == theme).mean()) for theme, ranking in enumerate(rankings)]

    assert log[-1]["total"] < 0.7 * log[0]["total"]
    # One of eight by chance; .925 when this was written.
    assert np.mean(inside) > 0.6


def test_the_loss_is_that_of_the_whole_model(backbone: Backbone) -> None:
    """The mean over what is learnt, position by position by the model's own logits; padding changes nothing."""
    tokenizer = backbone.tokenizer
    chats = [
        title_of_code(backbone.vocab.name(item), title) for item, title in ((3, "A cup"), (9, "Small garden lamp"))
    ]
    samples = [encode_chat(tokenizer, chat, max_tokens=99) for chat in chats]
    nats = []
    with torch.no_grad():
        for sample in samples:
            log_probs = (
                backbone.model(input_ids=torch.from_numpy(sample.tokens.astype(np.int64))[None])
                .logits[0]
                .log_softmax(-1)
            )
            nats += [-float(log_probs[pos - 1, sample.tokens[pos]]) for pos in np.flatnonzero(sample.learnt)]
        both = float(batch_loss(backbone.model, collate(samples, 0)))

    assert len(nats) == sum(len(tokenizer.encode(chat.answer)) + 1 for chat in chats)
    assert both == pytest.approx(np.mean(nats), abs=1e-5)
    assert mean_loss(backbone, samples, tokens_per_batch=1) == pytest.approx(np.mean(nats), abs=1e-5)


def test_samples_in_many_batches_of_a_step_are_learnt_from_as_one_batch(
    world: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """A batch each, with one learnt token or with many, or all of them in one: the mean is over all tokens."""
    catalog = titled(world)
    mixture = Mixture(backbone.tokenizer, backbone.vocab, catalog.titles, 4, 256)
    titles = ["Cup", "A small garden lamp for winter and for travel", "Music box"]
    samples = [mixture._chat(title_of_code(backbone.vocab.name(item), title))() for item, title in enumerate(titles)]

    def losses(tokens: int, accumulate: int) -> list[float]:
        training = SIDReasonerTrainingConfig(
            epochs=3, tokens_per_batch=tokens, accumulate=accumulate, learning_rate=1e-3, warmup_share=0.0
        )
        stage, own = Stage.of("stage_1", training), replace(backbone, model=copy.deepcopy(backbone.model))
        checkpoints = Checkpoints(tmp_path / str(tokens), minutes=60)
        log = fit_stage(own, samples, stage, training, checkpoints, seed=0, threads=1, validate=None)
        return [row["total"] for row in log]

    assert losses(64, 3) == pytest.approx(losses(4096, 1), abs=1e-3)
    assert len({int(sample.learnt.sum()) for sample in samples}) == 3


def test_every_task_is_learnt_and_counted(world: Any, tmp_path: Path) -> None:
    """Caps hold; the summary says whose texts they were, and the header too."""
    chats = tmp_path / "general.jsonl"
    chat = {
        "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\n2\n</think>\n\n4"}]
    }
    chats.write_text("".join(json.dumps(chat) + "\n" for _ in range(5)))
    system = system_of(training={"epochs": 1, "general": chats, "general_rows": 3})
    summary = system.fit(inputs_of(world), tmp_path / "fit")
    header = json.loads((tmp_path / "fit" / "model" / "model.json").read_text())
    predicted = ("code_to_code", "code_to_title", "title_to_title", "title_to_code", "code_of_title", "title_of_code")

    assert summary["stage_1"]["rows"] == dict.fromkeys(predicted, 8) | {"item_text": 6, "user_text": 8, "general": 3}
    assert summary["stage_2a"]["rows"] == {"think": 8, "code_to_code": 0}
    assert summary["corpus"]["teacher"] == header["teacher"] == "template-1-0"
    assert header["stages"] == ["stage_1", "stage_2a"]
    assert not (tmp_path / "fit" / "stages").exists()


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


@pytest.mark.parametrize(("killed_at", "lora_rank"), [(3, 0), (11, 0), (3, 2), (11, 2)])
def test_a_killed_fit_ends_with_the_same_bytes(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, lora_rank: int
) -> None:
    """In the first stage and in the second, which begins where the first had ended; with adapters too."""
    system = system_of(
        model={"lora_rank": lora_rank},
        training={"checkpoint_minutes": 1e-9, "rows_per_task": 6},
        activation={"epochs": 3},
    )
    whole = system.fit(inputs_of(world), tmp_path / "whole")
    steps = [len(whole[stage]["log"]) for stage in ("stage_1", "stage_2a")]
    given, plain = [], TokenBatches.batches

    def dying(self: TokenBatches, epoch: int, first: int = 0) -> Iterator[Any]:
        for batch in plain(self, epoch, first):
            # Held-out rows are one batch, always of epoch 0.
            given.append(batch)
            if len(given) == killed_at:
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TokenBatches, "batches", dying)
        with pytest.raises(Killed):
            system.fit(inputs_of(world), tmp_path / "killed")
    in_second = (tmp_path / "killed" / "stages" / "stage_1").exists()
    system.fit(inputs_of(world), tmp_path / "killed")

    assert steps == [2, 3]
    assert in_second == (killed_at == 11)
    assert digests(tmp_path / "whole" / "model") == digests(tmp_path / "killed" / "model")


def test_validation_by_answers_keeps_the_best_weights(world: Any, tmp_path: Path) -> None:
    """It is given a model that answers directly; the first look of each stage is the best, and nothing is held out."""
    looks: list[float] = []

    def value(model: RankingModel) -> float:
        assert len(model.rank([theme_query(0)], beam_width=5, blocked=NOTHING)[0].items) == 5
        looks.append(1.0 / (1 + len(looks)))
        return looks[-1]

    system = system_of(training={"epochs": 3, "patience": 2}, search={"mode": "think"})
    inputs = replace(inputs_of(world), validate=value)
    summary = system.fit(inputs, tmp_path / "a")
    held_out = system.fit(inputs_of(world), tmp_path / "b")

    assert summary["stage_1"]["log"][-1]["best_epoch"] == 1
    assert len(looks) == 3 + 1
    assert summary["points"] > held_out["points"]


def test_a_model_of_another_catalogue_is_refused(world: Any, tmp_path: Path) -> None:
    system = system_of(training={"epochs": 1})
    system.fit(inputs_of(world), tmp_path)
    catalog = titled(world)
    moved = replace(catalog, codes=catalog.codes[::-1].copy())
    with pytest.raises(BundleError, match="its words mean other items"):
        system.open(tmp_path / "model", moved)
    header = tmp_path / "model" / "model.json"
    header.write_text(header.read_text().replace('"sidreasoner"', '"s2gr"'))
    with pytest.raises(BundleError, match="expected a sidreasoner model"):
        system.open(tmp_path / "model", catalog)


@pytest.fixture(scope="module")
def live(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fitted model, as a bundle has it."""
    folder = tmp_path_factory.mktemp("live")
    system_of(training={"epochs": 1}).fit(inputs_of(world), folder)
    return folder / "model"


def refreshed(world: Any, live: Path) -> FitInputs:
    """Return what a fit after a refresh is given: the first eight items have changed their semantic IDs."""
    catalog = titled(world)
    codes = catalog.codes.copy()
    codes[:8] = codes[:8][::-1]
    return replace(inputs_of(world), catalog=replace(catalog, codes=codes), start=live)


def test_a_refreshed_codebook_is_fine_tuned_from_the_live_weights(world: Any, live: Path, tmp_path: Path) -> None:
    """Stage 1 has epochs and a rate of its own, activation is as ever; words mean the new catalogue's items."""
    inputs = refreshed(world, live)
    system = system_of(training={"fine_tune_epochs": 3, "epochs": 1, "patience": 9})
    summary = system.fit(inputs, tmp_path)
    [ranking] = system.open(tmp_path / "model", inputs.catalog).rank([theme_query(0)], beam_width=20, blocked=NOTHING)
    log = [json.loads(line) for line in (tmp_path / "model" / "training_log.jsonl").read_text().splitlines()]

    assert [row["stage"] for row in log] == ["stage_1"] * 3 + ["stage_2a"]
    assert summary["stage_2a"]["rows"] == {"think": 8, "code_to_code": 0}
    assert len(ranking.items) == 5
    with pytest.raises(BundleError, match="its words mean other items"):
        system.open(tmp_path / "model", titled(world))


def test_a_fine_tune_begins_where_the_live_model_ended(world: Any, live: Path, tmp_path: Path) -> None:
    """At next to no rate the weights stay the live ones, and at the rate of a fit they do not."""
    weights = "language_model/model.safetensors"
    begun = load_file(live / weights)

    def distance(name: str, rate: float) -> float:
        training = {"fine_tune_epochs": 1, "fine_tune_learning_rate": rate}
        system_of(training=training, activation={"enabled": False}).fit(refreshed(world, live), tmp_path / name)
        ended = load_file(tmp_path / name / "model" / weights)
        return max(float((ended[key] - value).abs().max()) for key, value in begun.items())

    assert distance("still", 1e-12) < 1e-7
    assert distance("moved", 3e-3) > 1e-3


def test_weights_that_lack_words_for_the_catalogues_codes_are_refused(world: Any, live: Path, tmp_path: Path) -> None:
    """A disambiguation code that the live catalogue did not have, and a model of another system."""
    inputs = refreshed(world, live)
    codes = np.pad(inputs.catalog.codes, ((0, 0), (0, 1)), constant_values=-1)
    codes[0, 3] = 1
    with pytest.raises(BundleError, match=r"words for \[8, 8, 8\] codes a level, the catalogue needs \[8, 8, 8, 2\]"):
        system_of().fit(replace(inputs, catalog=replace(inputs.catalog, codes=codes)), tmp_path / "more")
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.json").write_text('{"kind": "s2gr", "format": 1}')
    with pytest.raises(BundleError, match="expected a sidreasoner model of format 1, seen s2gr"):
        system_of().fit(replace(inputs, start=other), tmp_path / "kind")


def test_a_general_chat_that_is_none_is_named(world: Any, tmp_path: Path) -> None:
    chats = tmp_path / "general.jsonl"
    chats.write_text('{"messages": [{"role": "user", "content": "?"}]}\n')

    with pytest.raises(UsageError, match="line 1 of the general chats is no chat: the last turn"):
        system_of(training={"general": chats}).fit(inputs_of(world), tmp_path / "fit")
    with pytest.raises(UsageError, match="no general chats at"):
        system_of(training={"general": tmp_path / "none"}).fit(inputs_of(world), tmp_path / "fit")


def test_tied_weights_are_written_once(world: Any, tmp_path: Path) -> None:
    """As the usual tools write and read them."""
    system_of(training={"epochs": 1}, activation={"enabled": False}).fit(inputs_of(world), tmp_path)
    names = set(load_file(tmp_path / "model" / "language_model" / "model.safetensors"))

    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_a_prepared_corpus_leads_to_the_bytes_of_one_written_by_the_fit(world: Any, tmp_path: Path) -> None:
    """The same users are held out from both; no setting of a stage is part of what was prepared."""
    system = system_of()
    said = system.prepare(inputs_of(world), tmp_path / "a")
    system_of(training={"learning_rate": 1e-4, "epochs": 1}).prepare(inputs_of(world), tmp_path / "b")
    prepared = replace(inputs_of(world), prepared=tmp_path / "a" / "prepared")
    summary = system.fit(prepared, tmp_path / "prepared")
    alone = system.fit(inputs_of(world), tmp_path / "alone")

    assert said["points"] == summary["points"] == alone["points"]
    assert summary["corpus"] == {"teacher": "template-1-0", "texts": {"item": 6, "rationale": 8, "story": 8}}
    assert not (tmp_path / "prepared" / "replies.jsonl").exists()
    assert digests(tmp_path / "a" / "prepared") == digests(tmp_path / "b" / "prepared")
    assert digests(tmp_path / "prepared" / "model") == digests(tmp_path / "alone" / "model")


def test_what_a_served_teacher_wrote_is_there_for_every_run(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs money, and a step of another key has a folder of its own; a second run at the same time is told."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(lambda body: "no story").running() as server:
        teacher = {"kind": "openai", "base_url": server.base_url, "model": "m"}
        system = system_of(corpus={"teacher": teacher, "max_fallback_share": 1.0})
        first = system.prepare(inputs_of(world), tmp_path / "a")
        asked = len(server.bodies)
        second = system.prepare(inputs_of(world), tmp_path / "b")
        with (
            exclusive(home.replies_path().with_suffix(".lock"), "it"),
            pytest.raises(BusyError, match="replies is held"),
        ):
            system.prepare(inputs_of(world), tmp_path / "c")

    assert asked > 0
    assert len(server.bodies) == asked
    assert first["texts"]["read_history"]["asked"] > second["texts"]["read_history"]["asked"] == 0
    assert digests(tmp_path / "a" / "prepared").keys() == digests(tmp_path / "b" / "prepared").keys()
