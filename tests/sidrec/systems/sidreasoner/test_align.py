"""Stage 2b: GRPO moves the policy to what earns more, and is kept only where the rows say so."""

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

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.base import MODEL, FitInputs
from sidrec.systems.sidreasoner.align import RolloutSet, align_backbone, passes, terms, vitals
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import SIDReasonerAlignmentConfig, SIDReasonerTrainingConfig
from sidrec.systems.sidreasoner.corpus import Corpus, Rationale
from sidrec.systems.sidreasoner.mixture import Mixture
from sidrec.systems.sidreasoner.model_files import TRAINING_LOG
from sidrec.systems.sidreasoner.points import Point, points_of
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker, think_text
from sidrec.systems.sidreasoner.sampler import Sampler
from sidrec.systems.sidreasoner.samples import action_log_probs
from sidrec.systems.sidreasoner.sft import Stage, fit_stage
from sidrec.training.checkpoint import Checkpoints
from tests.sidrec.systems.sidreasoner.test_train import inputs_of, system_of
from tests.sidrec.systems.sidreasoner.world import histories, titled

CONFIG = SIDReasonerAlignmentConfig(
    group_size=4, prompts_per_step=3, steps=4, validate_every=2, max_rationale_tokens=5, learning_rate=1e-3
)
TRAINING = SIDReasonerTrainingConfig()


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def own(backbone: Backbone) -> Backbone:
    """A copy that may learn."""
    return Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, backbone.vocab)


def sampler_of(backbone: Backbone, config: SIDReasonerAlignmentConfig = CONFIG) -> Sampler:
    trie = PrefixTrie.from_codes(backbone.vocab.codes)
    return Sampler(
        backbone, trie, lambda point: think_text(backbone, point.history, max_items=4), config, max_tokens=200
    )


@pytest.fixture(scope="module")
def points(world: Any) -> list[Point]:
    return points_of(histories(world))


def test_terms_do_not_depend_on_what_is_in_memory(backbone: Backbone, points: list[Point]) -> None:
    """Losses and gradients of a few rows at a time are those of all rows at once."""
    sampler = sampler_of(backbone)
    torch.manual_seed(0)
    rollout = RolloutSet(sampler, points, CONFIG, seed=0).rollout(points[:3])
    found = []
    for tokens in (10**6, 300):
        policy = own(backbone).model
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in policy.parameters():
                weight += 0.01 * torch.randn_like(weight)  # away from the reference
        config = CONFIG.model_copy(update={"tokens_per_pass": tokens, "kl_weight": 0.1})
        value = terms(policy, backbone.model, rollout, sampler, config)
        value["total"].backward()
        found.append((value, [weight.grad for weight in policy.parameters()]))

    assert len(list(passes(rollout.samples, 300))) > 3
    assert found[0][0]["kl"] > 1e-4
    for name in ("policy", "kl", "total"):
        torch.testing.assert_close(found[0][0][name], found[1][0][name], atol=1e-6, rtol=1e-4)
    for whole, part in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(whole, part, atol=1e-5, rtol=1e-3)


def test_a_step_makes_what_was_better_likelier(backbone: Backbone, points: list[Point]) -> None:
    """One sample of each prompt is better than the others: after a step it is likelier, and they are not."""
    learning = own(backbone)
    sampler = sampler_of(learning)
    torch.manual_seed(0)
    rollout = RolloutSet(sampler, points, CONFIG, seed=0).rollout(points[:3])
    advantages = torch.tensor([1.5, -0.5, -0.5, -0.5]).repeat(3)
    rollout = replace(rollout, advantages=advantages)

    def chances() -> torch.Tensor:
        with torch.no_grad():
            return action_log_probs(learning.model, sampler.level_tokens, rollout.samples, 1.0).sum(dim=1).view(3, 4)

    optimizer = torch.optim.SGD(learning.model.parameters(), lr=0.3)
    before = chances()
    terms(learning.model, backbone.model, rollout, sampler, CONFIG)["total"].backward()
    optimizer.step()
    gained = chances() - before

    assert gained[:, 0].mean() > 0.01
    assert gained[:, 1:].mean() < gained[:, 0].mean()


def test_advantages_are_within_a_prompt(backbone: Backbone, points: list[Point]) -> None:
    """By the unbiased deviation of its own rewards; a group of equals has none."""
    torch.manual_seed(0)
    rollout = RolloutSet(sampler_of(backbone), points, CONFIG, seed=0).rollout(points[:6])
    rewards = rollout.rewards.total.view(6, 4).numpy()
    expected = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)

    assert np.ptp(rewards) > 0
    np.testing.assert_allclose(rollout.advantages.view(6, 4).numpy(), expected, atol=1e-4)


def test_the_points_of_a_step_are_the_seeds(backbone: Backbone, points: list[Point]) -> None:
    """Whether a round is begun or gone on with; another seed has others."""

    def chosen(seed: int, first: int) -> list[tuple[Point, ...]]:
        data = RolloutSet(sampler_of(backbone), points, CONFIG, seed=seed)
        seen: list[tuple[Point, ...]] = []
        data.rollout = lambda own: seen.append(tuple(own))  # type: ignore[method-assign, assignment, return-value]
        list(data.batches(1, first))
        return seen

    assert chosen(0, 0)[1:] == chosen(0, 1)
    assert chosen(0, 0) != chosen(1, 0)
    assert all(len(set(map(id, step))) == 3 for step in chosen(0, 0))


def test_vitals_count_what_they_say(backbone: Backbone, points: list[Point]) -> None:
    sampler = sampler_of(backbone)
    found = vitals(backbone.model, backbone.model, points[:5], sampler, CONFIG, seed=3)
    torch.manual_seed(3)
    samples = sampler.samples(points[:5])
    answers = [[tuple(row) for row in group] for group in samples.answers.view(5, 4, -1).tolist()]
    items = {tuple(codes) for codes in backbone.vocab.codes.tolist()}

    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.diversity == pytest.approx(np.mean([len(set(group)) / 4 for group in answers]))
    assert found.valid == pytest.approx(np.mean([row in items for group in answers for row in group]))
    assert found.easy == {}
    assert found.beside["rationale_tokens"] == pytest.approx(samples.rationale_tokens.float().mean().item())


def test_written_freely_an_items_name_alone_is_no_progress(backbone: Backbone, points: list[Point]) -> None:
    config = CONFIG.model_copy(update={"rollout": "free"})
    found = vitals(backbone.model, backbone.model, points[:5], sampler_of(backbone, config), config, seed=3)

    assert found.easy == {"items": found.valid}


# --- the whole stage ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    system_of(training={"epochs": 1}).fit(inputs_of(world), folder)
    return folder / "model"


def judged(world: Any, values: Iterator[float]) -> FitInputs:
    return replace(inputs_of(world), validate=lambda model: float(next(values)))


def test_the_best_round_is_the_aligned_model(world: Any, fitted: Path, tmp_path: Path) -> None:
    """Values .1 before, then .3 and .2: the first round's weights, which no fit made; it opens and answers."""
    system = system_of()
    summary = system.align(fitted, judged(world, iter([0.1, 0.3, 0.2])), tmp_path)
    header = files.read_json(tmp_path / "model_aligned" / MODEL)

    assert (summary["kept"], summary["epoch"], len(summary["rounds"])) == ("aligned", 1, 2)
    assert header["aligned"]
    assert header["stages"] == ["stage_1", "stage_2a", "stage_2b"]
    before, after = digest(fitted), digest(tmp_path / "model_aligned")
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {MODEL, TRAINING_LOG, "language_model/model.safetensors"}
    assert isinstance(system.open(tmp_path / "model_aligned", titled(world)), SIDReasonerRanker)
    assert summary["rounds"][0].keys() >= {"kl", "diversity", "valid", "hits", "rationale_tokens"}


def test_a_stage_that_does_not_help_leaves_the_model_as_it_was(world: Any, fitted: Path, tmp_path: Path) -> None:
    summary = system_of().align(fitted, judged(world, iter([0.9, 0.3, 0.2])), tmp_path)

    assert summary["kept"] == "supervised"
    assert digest(tmp_path / "model_aligned") == digest(fitted)


def test_equal_runs_make_equal_models(world: Any, fitted: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        system_of().align(fitted, judged(world, iter([0.1, 0.2, 0.3])), tmp_path / name)

    assert digest(tmp_path / "one" / "model_aligned") == digest(tmp_path / "two" / "model_aligned")


@pytest.mark.parametrize(("change", "said"), [({"enabled": False}, "enabled is false"), ({}, "no rows to judge")])
def test_what_cannot_be_aligned_is_skipped_and_said(
    world: Any, fitted: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    inputs = replace(inputs_of(world), training_set=world.inputs().training_set.clear())

    assert said in system_of(alignment=change).align(fitted, inputs, tmp_path)["skipped"]
    assert digest(tmp_path / "model_aligned") == digest(fitted)


# --- learning -----------------------------------------------------------------------------------------------------


def taught(backbone: Backbone, points: list[Point], folder: Path, **change: Any) -> dict[str, Any]:
    """Align by a rule: whoever asks, the items of one theme are right, and every round is the best so far."""
    config = CONFIG.model_copy(
        update={"group_size": 16, "learning_rate": 3e-3, "max_kl": 10.0, "min_diversity": 0.0, "patience": 99} | change
    )
    learning = own(backbone)
    rising = iter(range(1, 1000))
    return align_backbone(
        learning,
        sampler_of(learning, config),
        [replace(point, targets=tuple(range(8))) for point in points[:24]],
        value=lambda: float(next(rising)),
        config=config,
        training=TRAINING,
        folder=folder,
        seed=0,
        threads=1,
    )


def test_alignment_raises_the_reward(backbone: Backbone, points: list[Point], tmp_path: Path) -> None:
    """Of a model that has learnt nothing, in 16 steps of 64 answers."""
    summary = taught(backbone, points, tmp_path, prompts_per_step=4, steps=16, validate_every=8)

    assert summary["rounds"][-1]["hits"] > summary["supervised"]["hits"] + 0.2
    assert summary["rounds"][-1]["kl"] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("rollout", ["free", "trace_then_trie"])
def test_alignment_comes_to_the_best_that_a_rule_allows(
    world: Any, backbone: Backbone, points: list[Point], tmp_path: Path, rollout: str
) -> None:
    """From a model that knows how to answer and nothing of the rule: 95 % of the reward that there is."""
    knows = activated(backbone, titled(world), points[:24], tmp_path / "sft")
    summary = taught(
        knows,
        points,
        tmp_path,
        rollout=rollout,
        learning_rate=1e-3,
        prompts_per_step=8,
        steps=80,
        validate_every=20,
        max_rationale_tokens=12,
    )
    print(json.dumps([summary["supervised"], *summary["rounds"]]))
    last = summary["rounds"][-1]

    assert summary["supervised"]["hits"] < 0.5
    assert last["hits"] + 0.1 * last["valid"] > 0.95 * 1.1
    assert last["valid"] > 0.95


def activated(backbone: Backbone, catalog: Catalog, points: list[Point], folder: Path) -> Backbone:
    """Return a copy that thinks for a few words and then names some item."""
    learning = own(backbone)
    mixture = Mixture(learning.tokenizer, learning.vocab, catalog.titles, 4, 200)
    items = np.random.default_rng(0).integers(0, len(catalog), (8, len(points)))
    rationales = [
        Rationale(point, int(item), "a thought") for row in items for point, item in zip(points, row, strict=True)
    ]
    samples = mixture.activating(Corpus([], rationales, [], {}), direct_share=0, seed=0)["think"]
    stage = Stage("stage_2a", 12, 4096, accumulate=1, learning_rate=3e-3, schedule="constant", warmup_share=0.0)
    checkpoints = Checkpoints(folder, minutes=60)
    fit_stage(learning, samples, stage, TRAINING, checkpoints, seed=0, threads=1, validate=None)
    return learning
