"""Alignment earns more for its paths, keeps the supervised model where that is better, and says which."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sidrec import files
from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.base import MODEL, WEIGHTS
from sidrec.systems.reg4rec.align import terms, vitals
from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig, Reg4RecTrainingConfig
from sidrec.systems.reg4rec.rollout import walk
from sidrec.systems.reg4rec.rollouts import Rollout, RolloutSet
from sidrec.systems.stored_histories import histories_of
from sidrec.systems.validation_rows import rows_value
from sidrec.training.grpo import group_advantages
from tests.sidrec.systems.reg4rec.conftest import system_of
from tests.sidrec.systems.reg4rec.world import FIT_DAY, SAMPLING, model_of, tables_of

CONFIG = Reg4RecAlignmentConfig(rounds=2, users_per_round=20, batch_users=8, group_size=4)
TRAINING = Reg4RecTrainingConfig(exploration=0.0)


@pytest.fixture(scope="module")
def fitted(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supervised")
    training = {"epochs": 6, "learning_rate": 1e-2, "average_decay": 0.9}
    system_of(training=training, repeat={"enabled": False}).fit(world.inputs(), folder)
    return folder / "model"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rollouts(world: Any, config: Reg4RecAlignmentConfig = CONFIG, end: int = FIT_DAY, **change: Any) -> RolloutSet:
    tables = tables_of(world)
    histories = histories_of(change.pop("baskets", world.baskets), world.catalog)
    return RolloutSet(histories, SAMPLING, config, end=end, seed=0, model=model_of(**change), tables=tables)


def test_rounds_have_their_steps_and_updates(world: Any) -> None:
    """20 users in batches of 8 are 3 steps; with two updates each rollout comes twice, and a resumed round goes on."""
    once, twice = rollouts(world), rollouts(world, CONFIG.model_copy(update={"updates": 2}))
    given = list(twice.batches(0))

    assert (len(once), len(twice)) == (3, 6)
    assert [given[row] is given[row + 1] for row in range(5)] == [True, False, True, False, True]
    rest = list(twice.batches(0, 3))
    assert [len(own.walk.slot) for own in rest] == [8, 4, 4]
    torch.testing.assert_close(rest[1].points.windows.items, given[4].points.windows.items)


def test_nothing_on_or_after_the_end_reaches_a_rollout(world: Any) -> None:
    """Other purchases from that day on change no point, no window and no target."""
    end = FIT_DAY - 60
    day = pl.lit(end).cast(pl.Int32).cast(pl.Date)
    other = world.baskets.with_columns(
        item_ids=pl.when(pl.col("day") >= day).then(pl.lit(["i00"])).otherwise(pl.col("item_ids"))
    )
    assert not other.equals(world.baskets)
    for one, two in zip(
        rollouts(world, end=end).batches(1), rollouts(world, end=end, baskets=other).batches(1), strict=True
    ):
        torch.testing.assert_close(one.points.windows.items, two.points.windows.items)
        torch.testing.assert_close(one.points.batch.inputs.items, two.points.batch.inputs.items)
        torch.testing.assert_close(one.points.batch.target_item, two.points.batch.target_item)


def test_the_window_begins_with_the_points_own_target(world: Any) -> None:
    """The basket that the supervised loss asks for is the first that a path is judged by."""
    for rollout in rollouts(world).batches(0):
        for user in range(len(rollout.walk.slot)):
            own = rollout.points.batch.target_item[rollout.points.batch.target_point == user]
            first = rollout.points.windows.items[user, 0]
            assert sorted(own.tolist()) == sorted(first[first >= 0].tolist())


def test_advantages_are_those_of_the_rewards(world: Any) -> None:
    rollout = next(rollouts(world).batches(0))

    assert rollout.advantages.sum(dim=1).abs().max() < 1e-4
    assert rollout.advantages.shape == (8, 4)


def test_at_the_reference_the_ratio_is_one_and_the_kl_nothing(world: Any) -> None:
    """Policy loss is the mean advantage, which is 0; the supervised loss is added by its weight."""
    data = rollouts(world)
    rollout = next(data.batches(0))
    found = terms(data.model, model_of(), rollout, data.tables, TRAINING, CONFIG)

    assert found["policy"].item() == pytest.approx(0, abs=1e-5)
    assert found["kl"].item() == pytest.approx(0, abs=1e-6)
    assert found["clipped"].item() == 0
    assert found["total"].item() == pytest.approx(0.1 * found["supervised"].item(), abs=1e-5)


def test_a_step_makes_the_better_path_more_probable(world: Any) -> None:
    """One path of each user is given the advantage: after a step of GRPO alone these gained, the others lost."""
    data = rollouts(world)
    config = CONFIG.model_copy(update={"supervised_weight": 0.0, "kl_weight": 0.0})
    plain = next(data.batches(0))
    rewards = torch.zeros_like(plain.advantages).index_fill(1, torch.tensor([2]), 1.0)
    rollout = Rollout(plain.points, plain.walk, group_advantages(rewards), plain.reward)
    optimizer = torch.optim.SGD(data.model.parameters(), lr=1e-3)

    def chances() -> torch.Tensor:
        start = rollout.points.start(data.model, data.tables)
        return walk(data.model, start, slot_temperature=1.0, given=rollout.walk).log_probs.sum(dim=-1).detach()

    before = chances()
    terms(data.model, model_of(), rollout, data.tables, TRAINING, config)["total"].backward()
    optimizer.step()
    gained = chances() - before

    assert gained[:, 2].mean() > 0.01
    assert gained[:, [0, 1, 3]].mean() < 0


def test_vitals_count_what_they_say(world: Any) -> None:
    """A policy that is the reference has no KL; shares are by loops over the same paths."""
    data, sets = rollouts(world), TokenSets.of(world.catalog.codes, 8)
    points = data.points(range(12), np.random.default_rng(0), newest_only=True)
    found = vitals(data.model, model_of(), points, data.tables, sets, CONFIG, seed=3)

    torch.manual_seed(3)
    taken = walk(data.model, points.start(data.model, data.tables), slot_temperature=1.0, samples=4)
    items = {tuple(own) for own in world.catalog.codes.tolist()}
    paths = [[tuple(path) for path in own] for own in taken.tokens.tolist()]
    hits, named = [], []
    for user, own in enumerate(paths):
        wanted = [item for item in points.windows.items[user, 0].tolist() if item >= 0]
        for row, path in enumerate(own):
            codes = [data.tables.codes[item].tolist() for item in wanted]
            hits.append(max(sum(a == b for a, b in zip(path, own_, strict=True)) for own_ in codes) / 3)
            said = taken.category[user, row].tolist()
            named.append(max(said.count(int(data.tables.category[item])) for item in wanted) / 3)

    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.diversity == pytest.approx(np.mean([len(set(own)) / 4 for own in paths]))
    assert found.valid == pytest.approx(np.mean([path in items for own in paths for path in own]))
    assert found.hits["hits"] == pytest.approx(np.mean(hits))
    assert found.hits["category_hits"] == pytest.approx(np.mean(named))
    agree = (taken.category[..., 1:] == taken.category[..., :-1]).float().mean().item()
    assert found.easy["consistency"] == pytest.approx(agree)


def test_alignment_raises_the_reward_of_paths(world: Any, fitted: Path, tmp_path: Path) -> None:
    """With rows that always get better, the last round is kept, and its paths earn more than the supervised ones."""
    values = iter(np.linspace(0.1, 0.9, 40))
    system = system_of(
        alignment={
            "rounds": 8, "users_per_round": 60, "batch_users": 20, "group_size": 16, "learning_rate": 3e-3,
            "supervised_weight": 0.0, "max_kl": 50.0, "min_valid": 0.0, "min_diversity": 0.0,
        },
    )  # fmt: skip
    summary = system.align(fitted, replace(world.inputs(), validate=lambda model: float(next(values))), tmp_path)
    last = summary["rounds"][-1]

    assert summary["kept"] == "aligned"
    assert summary["epoch"] == 8
    assert last["hits"] > summary["supervised"]["hits"] + 0.03
    assert last["kl"] > 0
    assert files.read_json(tmp_path / "model_aligned" / MODEL)["aligned"] is True
    assert digest(tmp_path / "model_aligned" / WEIGHTS) != digest(fitted / WEIGHTS)
    again = system.align(tmp_path / "model_aligned", world.inputs(), tmp_path / "again")
    assert "aligned already" in again["skipped"]


def test_a_policy_that_does_not_move_is_at_its_reference(world: Any, fitted: Path, tmp_path: Path) -> None:
    """The supervised fit had dropout; ratios and KL of the alignment have none of its noise."""
    assert system_of().model.dropout > 0
    system = system_of(alignment={"learning_rate": 1e-12, "rounds": 1})
    loss = system.align(fitted, world.inputs(), tmp_path)["loss"]

    assert loss["kl"] == pytest.approx(0, abs=1e-6)
    assert loss["clipped"] == 0


def test_without_a_gain_the_supervised_model_stays_and_it_is_said(world: Any, fitted: Path, tmp_path: Path) -> None:
    """Rows that get worse from the first round on: the bytes are the supervised ones, after `patience` rounds."""
    values = iter(np.linspace(0.9, 0.1, 40))
    system = system_of(alignment={"rounds": 6, "patience": 2})
    summary = system.align(fitted, replace(world.inputs(), validate=lambda model: float(next(values))), tmp_path)

    assert summary["kept"] == "supervised"
    assert "no round was above the supervised model's 0.9000" in summary["reason"]
    assert summary["supervised_value"] == 0.9
    assert len(summary["rounds"]) < 6
    assert digest(tmp_path / "model_aligned" / WEIGHTS) == digest(fitted / WEIGHTS)
    assert digest(tmp_path / "model_aligned" / MODEL) == digest(fitted / MODEL)


def test_a_round_that_fails_a_gate_is_not_kept_however_good_its_rows(world: Any, fitted: Path, tmp_path: Path) -> None:
    values = iter(np.linspace(0.1, 0.9, 40))
    system = system_of(alignment={"learning_rate": 3e-2, "max_kl": 1e-6})
    summary = system.align(fitted, replace(world.inputs(), validate=lambda model: float(next(values))), tmp_path)

    assert summary["kept"] == "supervised"
    assert "no round passed the gates (KL" in summary["reason"]
    assert digest(tmp_path / "model_aligned" / WEIGHTS) == digest(fitted / WEIGHTS)


def test_rows_of_the_training_set_judge_where_none_are_given(world: Any, fitted: Path, tmp_path: Path) -> None:
    """NDCG@10 of the supervised model on them, by its own lists."""
    system = system_of()
    summary = system.align(fitted, world.inputs(), tmp_path)
    value = rows_value(world.inputs())
    assert value is not None
    ranker = system.open(fitted, world.catalog)
    assert summary["supervised_value"] == pytest.approx(value(ranker), abs=1e-6)
    assert 0.05 < summary["supervised_value"] <= 1


def test_nothing_is_learnt_from_the_days_of_the_rows_that_judge(world: Any, fitted: Path, tmp_path: Path) -> None:
    """Other baskets in the validation days give the same rounds; other ones before them do not."""
    day, first = pl.col("day"), pl.lit(FIT_DAY - 31).cast(pl.Int32).cast(pl.Date)
    other = pl.when(day >= first).then(pl.lit(["i00"])).otherwise(pl.col("item_ids")).alias("item_ids")
    before = pl.when(day < first).then(pl.lit(["i00"])).otherwise(pl.col("item_ids")).alias("item_ids")

    def rounds(name: str, change: pl.Expr | None) -> list[dict[str, Any]]:
        baskets = world.baskets if change is None else world.baskets.with_columns(change)
        found: list[dict[str, Any]] = system_of(alignment={"learning_rate": 1e-3}).align(
            fitted, replace(world.inputs(), baskets=baskets.lazy()), tmp_path / name
        )["rounds"]
        return found

    assert rounds("plain", None) == rounds("late", other)
    assert rounds("plain", None) != rounds("early", before)


@pytest.mark.parametrize(("change", "said"), [({"enabled": False}, "enabled is false"), ({}, "no rows to judge")])
def test_what_cannot_be_aligned_is_skipped_and_said(
    world: Any, fitted: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    inputs = replace(world.inputs(), training_set=pl.LazyFrame())
    summary = system_of(alignment=change).align(fitted, inputs, tmp_path)

    assert said in summary["skipped"]
    assert digest(tmp_path / "model_aligned" / WEIGHTS) == digest(fitted / WEIGHTS)


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


def test_a_killed_alignment_ends_with_the_same_bytes(
    world: Any, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are drawn anew from the checkpoint's weights and random state."""
    system = system_of(
        training={"checkpoint_minutes": 1e-9}, alignment={"rounds": 3, "batch_users": 8, "users_per_round": 24}
    )

    def align(folder: Path) -> dict[str, Any]:
        values = iter(np.linspace(0.1, 0.9, 40))
        return system.align(fitted, replace(world.inputs(), validate=lambda model: float(next(values))), folder)

    align(tmp_path / "whole")
    given, plain = [], RolloutSet.batches

    def dying(self: RolloutSet, epoch: int, first: int = 0) -> Iterator[Any]:
        for rollout in plain(self, epoch, first):
            given.append(rollout)
            if len(given) == 5:
                raise Killed
            yield rollout

    with monkeypatch.context() as patch:
        patch.setattr(RolloutSet, "batches", dying)
        with pytest.raises(Killed):
            align(tmp_path / "killed")
    align(tmp_path / "killed")

    assert digest(tmp_path / "killed" / "model_aligned" / WEIGHTS) == digest(
        tmp_path / "whole" / "model_aligned" / WEIGHTS
    )
