"""Fitting S²GR: it learns, it answers through its files, and where it was killed cannot be seen."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sidrec.systems.base import Query
from sidrec.systems.batches import TrainingSet
from sidrec.systems.config import RepeatConfig
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.s2gr.train import S2GRSystem
from sidrec.systems.validation_rows import validation_rows

DAY = 86_400
NOW = 14_914 * DAY  # 2010-11-01


@pytest.fixture
def system(
    codebook_config: S2GRCodebookConfig,
    model_config: S2GRModelConfig,
    training_config: S2GRTrainingConfig,
    repeat_config: RepeatConfig,
) -> S2GRSystem:
    return S2GRSystem(codebook_config, model_config, training_config, repeat_config)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def theme_query(theme: int, *, exclude_seen: bool) -> Query:
    items = np.arange(3) + 8 * theme
    return Query(items, np.full(3, NOW - 20 * DAY), np.zeros(3, dtype=np.int64), NOW, k=5, exclude_seen=exclude_seen)


def test_a_fitted_model_recommends_the_users_theme(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """Users of the tiny world buy within a theme; after a few epochs so do its recommendations, repeats or not."""
    update = {"epochs": 50, "learning_rate": 1e-2, "average_decay": 0.9, "held_out_epochs": 2}
    longer = S2GRSystem(system.codebook, system.model, system.training.model_copy(update=update), system.repeat)
    longer.fit(world.inputs(), tmp_path)
    ranker = longer.open(tmp_path / "model", world.catalog)

    for exclude_seen in (True, False):
        queries = [theme_query(theme, exclude_seen=exclude_seen) for theme in range(8)]
        rankings = ranker.rank(queries, beam_width=20, blocked=np.zeros(64, dtype=bool))
        inside = [float((ranking.items // 8 == theme).mean()) for theme, ranking in enumerate(rankings)]

        assert np.mean(inside) > 0.7
        for query, ranking in zip(queries, rankings, strict=True):
            assert len(set(ranking.items.tolist())) == 5
            assert exclude_seen is False or not set(ranking.items.tolist()) & set(query.items.tolist())


def test_the_repeat_path_finds_that_users_repeat(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """With the path the held-out baskets are more probable than without."""
    summary = system.fit(world.inputs(), tmp_path)["repeat"]

    assert summary["loss_with"] < summary["loss_without"] - 0.05
    assert 0.05 < summary["mean_gate"] < 0.95


def test_the_same_seed_gives_the_same_bytes(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """Every file of the model, twice; another seed gives others."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        system.fit(world.inputs(seed), tmp_path / name)

    assert digests(tmp_path / "a" / "model") == digests(tmp_path / "b" / "model")
    assert digests(tmp_path / "a" / "model") != digests(tmp_path / "c" / "model")


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


@pytest.mark.parametrize("killed_at", [3, 7, 10, 15])
def test_a_killed_fit_ends_with_the_same_bytes(
    world: Any, system: S2GRSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Killed in either of the two trainings, within an epoch or at its end, then run again: bit for bit the same."""
    system = S2GRSystem(
        system.codebook, system.model, system.training.model_copy(update={"checkpoint_minutes": 1e-9}), system.repeat
    )
    system.fit(world.inputs(), tmp_path / "whole")

    original: Callable[..., Iterator[Any]] = TrainingSet.batches
    drawn = 0

    def dying(self: TrainingSet, epoch: int, first: int = 0) -> Iterator[Any]:
        nonlocal drawn
        for batch in original(self, epoch, first):
            drawn += 1
            if drawn == killed_at:
                raise Killed
            yield batch

    monkeypatch.setattr(TrainingSet, "batches", dying)
    with pytest.raises(Killed):
        system.fit(world.inputs(), tmp_path / "killed")
    assert list((tmp_path / "killed" / "checkpoints").rglob("state.json"))
    monkeypatch.setattr(TrainingSet, "batches", original)
    torch.rand(100)
    system.fit(world.inputs(), tmp_path / "killed")

    assert digests(tmp_path / "killed" / "model") == digests(tmp_path / "whole" / "model")
    assert not (tmp_path / "killed" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "training"),
    [
        ({"thinking": "none"}, {}),
        ({"thinking": "ahead"}, {}),
        ({"thinking": "pause"}, {}),
        ({"flatten": True}, {}),
        ({"align_weight": 0.0}, {}),
        ({"align_space": "token", "contrast_to_codes": False}, {}),
        ({"tie_codes": True, "head_dim": 6, "prefix_bias": False, "label_smoothing": 0.1}, {"prior": "static"}),
        ({"encoder": "full"}, {"points": "sampled", "schedule": "inverse_sqrt"}),
        ({"encoder": "full", "flatten": True}, {"points": "last", "precision": "bfloat16"}),
    ],
)
def test_every_variant_fits_and_answers(
    world: Any, system: S2GRSystem, tmp_path: Path, change: dict[str, Any], training: dict[str, Any]
) -> None:
    """The controls, the paper's flat layout, a T5 encoder, and every other choice that the paper leaves open."""
    variant = S2GRSystem(
        system.codebook,
        system.model.model_copy(update=change),
        system.training.model_copy(update=training),
        RepeatConfig(enabled=False),
    )
    summary = variant.fit(world.inputs(), tmp_path)
    ranking = variant.open(tmp_path / "model", world.catalog).rank(
        [theme_query(0, exclude_seen=False)], beam_width=64, blocked=np.zeros(64, dtype=bool)
    )[0]

    assert summary["repeat"] == {}
    assert len(ranking.items) == 5
    assert np.isfinite(ranking.scores).all()


def test_rows_without_known_history_or_target_are_left_out(world: Any) -> None:
    """They can teach the repeat path nothing."""
    table = world.training_set.head(3)
    strange = pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(["unheard-of"])).otherwise(pl.col("target_item_ids"))

    queries, targets = validation_rows(table.with_columns(strange.alias("target_item_ids")), world.catalog)

    assert len(queries) == len(targets) == 2


def test_a_fit_goes_on_from_the_weights_it_is_given(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """With a learning rate of next to nothing, fine-tuning answers as the model it started from, repeats included."""
    system.fit(world.inputs(), tmp_path / "first")
    still = system.training.model_copy(update={"fine_tune_epochs": 1, "fine_tune_learning_rate": 1e-12})
    tuned = S2GRSystem(system.codebook, system.model, still, system.repeat)
    summary = tuned.fit(replace(world.inputs(seed=5), start=tmp_path / "first" / "model"), tmp_path / "second")
    queries = [theme_query(theme, exclude_seen=False) for theme in range(8)]
    one, other = (
        system.open(tmp_path / name / "model", world.catalog).rank(
            queries, beam_width=20, blocked=np.zeros(64, dtype=bool)
        )
        for name in ("first", "second")
    )
    header = json.loads((tmp_path / "second" / "model" / "model.json").read_text())

    assert summary["epochs"] == 1
    assert header["repeat"] == json.loads((tmp_path / "first" / "model" / "model.json").read_text())["repeat"]
    # Prefix biases are learnt anew from the day's popularity, so scores may differ a little; what is liked does not.
    assert np.mean([len(set(a.items) & set(b.items)) / 5 for a, b in zip(one, other, strict=True)]) > 0.8


def test_a_memorised_set_is_decoded_without_a_mistake(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """Twelve users of two baskets each, one item a basket: greedy decoding gives every user the second item."""
    rng = np.random.default_rng(0)
    pairs = [(int(a), int(b)) for a, b in zip(rng.permutation(64)[:12], rng.permutation(64)[:12], strict=True)]
    day = world.baskets["day"].min()
    rows = [
        {
            "user_id": f"u{user}",
            "day": day + timedelta(days=step),
            "time": 0,
            "item_ids": [world.catalog.item_ids[item]],
        }
        for user, pair in enumerate(pairs)
        for step, item in enumerate(pair)
    ]
    training = system.training.model_copy(
        update={"epochs": 150, "learning_rate": 1e-2, "average_decay": 0.9, "item_dropout": 0.0, "prior": "static"}
    )
    model = system.model.model_copy(update={"dropout": 0.0})
    memoriser = S2GRSystem(system.codebook, model, training, RepeatConfig(enabled=False))
    memoriser.fit(replace(world.inputs(), baskets=pl.LazyFrame(rows)), tmp_path)
    queries = [
        Query(np.array([first]), np.array([NOW - DAY]), np.zeros(1, dtype=np.int64), NOW, k=1, exclude_seen=False)
        for first, _ in pairs
    ]
    rankings = memoriser.open(tmp_path / "model", world.catalog).rank(
        queries, beam_width=1, blocked=np.zeros(64, dtype=bool)
    )

    assert [int(ranking.items[0]) for ranking in rankings] == [second for _, second in pairs]


def test_validation_ends_a_fit_with_the_weights_that_did_best(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    """The measure is given a ranker that answers; the model written is that of its best epoch."""
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    answers = []

    def measure(model: Any) -> float:
        [ranking] = model.rank([theme_query(0, exclude_seen=False)], beam_width=8, blocked=np.zeros(64, dtype=bool))
        answers.append(ranking)
        return next(values)

    training = system.training.model_copy(update={"epochs": 6, "validate_every": 1, "patience": 2})
    stopping = S2GRSystem(system.codebook, system.model, training, RepeatConfig(enabled=False))
    summary = stopping.fit(replace(world.inputs(), validate=measure), tmp_path)
    [ranking] = stopping.open(tmp_path / "model", world.catalog).rank(
        [theme_query(0, exclude_seen=False)], beam_width=8, blocked=np.zeros(64, dtype=bool)
    )

    assert summary["epochs"] == 4
    assert summary["loss"]["best_epoch"] == 2
    assert ranking.items.tolist() == answers[1].items.tolist()
    np.testing.assert_allclose(ranking.scores, answers[1].scores, rtol=1e-5)


def test_the_curves_of_a_fit_are_tensorboard_files(world: Any, system: S2GRSystem, tmp_path: Path) -> None:
    system.fit(world.inputs(), tmp_path)

    assert list((tmp_path / "logs" / "fit").glob("events.out.tfevents*"))
    assert list((tmp_path / "logs" / "held_out").glob("events.out.tfevents*"))
