"""Fitting REG4Rec: it learns, it answers through its files, and where it was killed cannot be seen."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.systems.base import WEIGHTS, Query, RankingModel, System
from sidrec.systems.batches import TrainingSet
from sidrec.systems.reg4rec.losses import Tables
from sidrec.systems.reg4rec.model import Paths
from sidrec.systems.reg4rec.rank import MASSES, OF_ITEM
from sidrec.systems.reg4rec.train import Reg4RecSystem
from tests.sidrec.systems.reg4rec.conftest import system_of
from tests.sidrec.systems.reg4rec.world import prior_by_hand

DAY = 86_400
NOW = 14_914 * DAY
NOTHING = np.zeros(64, dtype=np.bool_)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def theme_query(theme: int, *, exclude_seen: bool) -> Query:
    items = np.arange(3) + 8 * theme
    return Query(items, np.full(3, NOW - 20 * DAY), np.zeros(3, dtype=np.int64), NOW, k=5, exclude_seen=exclude_seen)


@pytest.mark.parametrize("flatten", [False, True])
def test_a_fitted_model_recommends_the_users_theme(world: Any, tmp_path: Path, flatten: bool) -> None:
    """Users of the tiny world buy within a theme; after a few epochs so do its recommendations, repeats or not."""
    system = system_of(
        model={"flatten": flatten},
        training={"epochs": 30, "learning_rate": 1e-2, "average_decay": 0.9, "held_out_epochs": 2},
    )
    summary = system.fit(world.inputs(), tmp_path)
    ranker = system.open(tmp_path / "model", world.catalog)
    for exclude_seen in (True, False):
        queries = [theme_query(theme, exclude_seen=exclude_seen) for theme in range(8)]
        rankings = ranker.rank(queries, beam_width=20, blocked=NOTHING)
        inside = [float((ranking.items // 8 == theme).mean()) for theme, ranking in enumerate(rankings)]

        assert np.mean(inside) > 0.6
    assert summary["repeat"]["loss_with"] < summary["repeat"]["loss_without"] - 0.05
    assert isinstance(system, System)
    assert isinstance(ranker, RankingModel)


def test_the_same_seed_gives_the_same_bytes(world: Any, system: Reg4RecSystem, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        system.fit(world.inputs(seed), tmp_path / name)

    assert digests(tmp_path / "a" / "model") == digests(tmp_path / "b" / "model")
    assert digests(tmp_path / "a" / "model") != digests(tmp_path / "c" / "model")


class Killed(BaseException):
    """Stands for kill -9: nothing below the test handles it."""


@pytest.mark.parametrize("killed_at", [3, 11])
def test_a_killed_fit_ends_with_the_same_bytes(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Slots are explored by torch's random state, which is in the checkpoint."""
    system = system_of(training={"checkpoint_minutes": 1e-9})
    system.fit(world.inputs(), tmp_path / "whole")
    given, plain = [], TrainingSet.batches

    def dying(self: TrainingSet, epoch: int, first: int = 0) -> Iterator[Any]:
        for batch in plain(self, epoch, first):
            given.append(batch)
            if len(given) == killed_at:
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "batches", dying)
        with pytest.raises(Killed):
            system.fit(world.inputs(), tmp_path / "killed")
    system.fit(world.inputs(), tmp_path / "killed")

    assert digests(tmp_path / "whole" / "model") == digests(tmp_path / "killed" / "model")


def test_a_carried_model_scores_old_items_among_new_ones(world: Any, system: Reg4RecSystem, tmp_path: Path) -> None:
    """Weights stay as they are, and the new item can be found among the old ones."""
    system.fit(world.inputs(), tmp_path)
    free = next((a, b, c) for a in range(8) for b in range(8) for c in range(8) if (a, b, c) not in
                {tuple(own) for own in world.catalog.codes.tolist()})  # fmt: skip
    codes = np.concatenate([world.catalog.codes, np.array([free], dtype=np.int32)])
    table = world.catalog.table().drop("codes")
    grown = Catalog.build(table.vstack(table[:1].with_columns(item_id=table["item_id"][:1] + "-new")), codes)
    summary = system.carry(tmp_path / "model", world.catalog, grown, tmp_path / "next")
    ranker = system.open(tmp_path / "next" / "model", grown)
    query = replace(theme_query(2, exclude_seen=False), k=65)
    found = ranker.rank([query], beam_width=65, blocked=np.zeros(65, dtype=np.bool_))[0]

    assert summary["new_items"] == 1
    old, new = (load_file(tmp_path / folder / WEIGHTS) for folder in ("model", "next/model"))
    assert all(torch.equal(new[name], value) for name, value in old.items() if name not in (MASSES, OF_ITEM))
    assert torch.equal(new[MASSES][:64], old[MASSES])
    assert new[MASSES][64] > 0
    assert sorted(found.items.tolist()) == list(range(65))
    with pytest.raises(BundleError, match="another row"):
        system.carry(tmp_path / "model", grown, world.catalog, tmp_path / "wrong")


def test_a_refreshed_codebook_is_fine_tuned_from_the_old_weights(
    world: Any, system: Reg4RecSystem, tmp_path: Path
) -> None:
    """The repeat path is the champion's, and the fit ends after its own number of epochs."""
    system.fit(world.inputs(), tmp_path / "old")
    ready = system_of(training={"fine_tune_epochs": 1})
    summary = ready.fit(replace(world.inputs(), start=tmp_path / "old" / "model"), tmp_path / "new")
    old, new = (ready.open(tmp_path / name / "model", world.catalog) for name in ("old", "new"))

    assert summary["epochs"] == 1
    assert new.repeat == old.repeat
    assert not np.allclose(new.model.codes.detach(), old.model.codes.detach())


def test_validation_stops_a_fit_early_and_keeps_the_best(world: Any, tmp_path: Path) -> None:
    """The first look is the best: patience 2 ends the fit after the third."""
    values = iter([0.9, 0.5, 0.4, 0.3, 0.2])
    system = system_of(training={"epochs": 5, "validate_every": 1, "patience": 2}, repeat={"enabled": False})
    summary = system.fit(replace(world.inputs(), validate=lambda model: next(values)), tmp_path)

    assert summary["epochs"] == 3
    assert summary["loss"]["best_epoch"] == 1


def test_the_probe_follows_the_true_tokens(world: Any, system: Reg4RecSystem, tmp_path: Path) -> None:
    system.fit(world.inputs(), tmp_path)
    ranker = system.open(tmp_path / "model", world.catalog)
    queries = [theme_query(theme, exclude_seen=False) for theme in range(8)]
    best = [int(own.items[0]) for own in replace(ranker, repeat=None).rank(queries, beam_width=64, blocked=NOTHING)]
    found = system.probe(ranker, queries, best)
    alone = [system.probe(ranker, [query], [item]) for query, item in zip(queries, best, strict=True)]
    taken = []
    for query, item in zip(queries, best, strict=True):
        codes = ranker.sets.codes[item].tolist()
        memory = ranker.encode([query])
        paths = Paths(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
        hidden, tokens, sure = paths.begin(), {}, []
        for step in range(3):
            tables = Tables(ranker.sets.codes, torch.zeros(64, dtype=torch.int64), ranker.prior)
            log_probs = ranker.model.slot_log_probs(hidden, prior_by_hand(tables, 0, tokens), step)[0, 0]
            slot = max((s for s in range(3) if s not in tokens), key=lambda s: log_probs[s].max().item())
            sure.append(log_probs[slot].max().exp().item())
            tokens[slot] = codes[slot]
            hidden = paths.extend(torch.tensor([[slot]]), torch.tensor([[codes[slot]]]))
        taken.append(sure)

    assert found["confidence"] == pytest.approx(np.mean(taken, axis=0), abs=1e-3)

    assert found["code_accuracy"] == pytest.approx(np.mean([own["code_accuracy"] for own in alone], axis=0), abs=1e-3)
    assert all(own["slot_entropy"] == [0.0, 0.0, 0.0] for own in alone)
    assert len(found["agreement"]) == 2
