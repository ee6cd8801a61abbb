"""Adapters: what learns, what stays, and that nothing of them is left behind a stage."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sidrec.systems.sidreasoner.adapters import adapted, plain_state
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.batches import collate
from sidrec.systems.sidreasoner.encoding import encode_chat
from sidrec.systems.sidreasoner.sft import batch_loss
from sidrec.systems.sidreasoner.tasks import code_to_code
from tests.sidrec.systems.sidreasoner.test_align import digest
from tests.sidrec.systems.sidreasoner.test_train import inputs_of, system_of

RANK = 2


@pytest.fixture
def learning(lively: Backbone) -> Backbone:
    return Backbone(copy.deepcopy(lively.model), lively.tokenizer, lively.vocab)


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in backbone.model.state_dict().items()}


def step(backbone: Backbone, *, rate: float = 0.1, steps: int = 3) -> None:
    chat = code_to_code(backbone.vocab.name(3), backbone.vocab.name(9))
    batch = collate([encode_chat(backbone.tokenizer, chat, max_tokens=200)], 0)
    optimizer = torch.optim.SGD([p for p in backbone.model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        batch_loss(backbone.model, batch).backward()
        optimizer.step()


def test_products_move_by_a_low_rank_and_only_new_words_are_learnt(learning: Backbone) -> None:
    """After the stage each product differs by a matrix of rank 2; other embeddings and all norms are as they were."""
    before = weights(learning)
    with adapted(learning, RANK):
        step(learning)
    after = weights(learning)
    new = learning.token_ids(learning.vocab.new_tokens())
    moved = {name: after[name] - before[name] for name in before}

    assert after.keys() == before.keys()
    for name, change in moved.items():
        if "_proj" in name:
            assert torch.linalg.matrix_rank(change, rtol=1e-3) == RANK
        elif "embed_tokens" not in name and "lm_head" not in name:
            assert not change.any()
    embeddings = moved["model.embed_tokens.weight"]
    old = torch.ones(len(embeddings), dtype=torch.bool)
    old[new] = False
    assert embeddings[new].abs().sum() > 0
    assert not embeddings[old].any()
    assert all(parameter.requires_grad for parameter in learning.model.parameters())


def test_a_stage_that_learns_nothing_leaves_the_weights(learning: Backbone) -> None:
    before = weights(learning)
    with adapted(learning, RANK):
        inside = plain_state(learning.model)
    after = weights(learning)

    assert inside.keys() >= before.keys()
    assert all(after[name].equal(before[name]) and inside[name].equal(before[name]) for name in before)


def test_answers_in_the_middle_of_a_stage_are_those_of_the_weights_behind_it(learning: Backbone) -> None:
    with adapted(learning, RANK):
        step(learning)
        inside = {name: value.clone() for name, value in plain_state(learning.model).items()}
    for name, value in weights(learning).items():
        torch.testing.assert_close(inside[name], value, atol=1e-6, rtol=1e-5)


def test_without_a_rank_every_weight_learns(learning: Backbone) -> None:
    before = weights(learning)
    with adapted(learning, 0):
        step(learning)

    assert sum(not value.equal(before[name]) for name, value in weights(learning).items()) > len(before) // 2


def test_a_fit_with_adapters_is_a_model_like_any_other(world: Any, tmp_path: Path) -> None:
    """It learns, equal fits are equal bytes and have no more files than a plain one, and alignment goes on from it."""
    model = {"model": {"lora_rank": RANK}, "training": {"epochs": 2, "learning_rate": 1e-2}}
    system = system_of(**model)
    first = system.fit(inputs_of(world), tmp_path / "one")
    system_of(**model).fit(inputs_of(world), tmp_path / "two")
    plain = system_of(training=model["training"]).fit(inputs_of(world), tmp_path / "plain")
    aligned = system.align(tmp_path / "one" / "model", inputs_of(world), tmp_path / "one")

    assert first["stage_1"]["log"][-1]["total"] < first["stage_1"]["log"][0]["total"]
    assert first["parameters"] == plain["parameters"]
    assert digest(tmp_path / "one" / "model") == digest(tmp_path / "two" / "model")
    assert digest(tmp_path / "one" / "model").keys() == digest(tmp_path / "plain" / "model").keys()
    assert aligned["kept"] in ("aligned", "supervised")
    assert len(aligned["rounds"]) == 2
