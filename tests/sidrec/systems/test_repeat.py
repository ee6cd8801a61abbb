"""The repeat path: a proper distribution, learnt where it helps, and the same through ranking as by definition."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from sidrec.decoding.beam import score_items
from sidrec.decoding.trie import NONE
from sidrec.systems.base import Query, Ranking
from sidrec.systems.config import RepeatConfig
from sidrec.systems.popularity_masses import recent_counts
from sidrec.systems.repeat import RepeatPath, fit_repeat_path, history_items, with_best_offset
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.s2gr.rank import S2GRRanker
from sidrec.systems.s2gr.steps import GeneratorSteps
from sidrec.systems.s2gr.train import S2GRSystem
from sidrec.systems.stored_histories import histories_of

DAY = 86_400
NOW = 14_914 * DAY


def query(items: list[int], days_ago: list[int], **change: Any) -> Query:
    times = np.array([NOW - ago * DAY for ago in days_ago], dtype=np.int64)
    basket = np.unique(times, return_inverse=True)[1].astype(np.int64)
    return replace(Query(np.array(items), times, basket, NOW, 10, False), **change)


@pytest.fixture(scope="module")
def ranker(world: Any, codebook_config: S2GRCodebookConfig, tmp_path_factory: pytest.TempPathFactory) -> S2GRRanker:
    folder = tmp_path_factory.mktemp("fit")
    training = S2GRTrainingConfig(epochs=3, batch_users=16, targets_per_basket=2)
    system = S2GRSystem(codebook_config, S2GRModelConfig(dim=16, ff_dim=32), training, RepeatConfig())
    system.fit(world.inputs(), folder)
    return system.open(folder / "model", world.catalog)


QUERIES = [
    query([3, 9, 3, 40, 41], [40, 40, 10, 10, 3]),
    query([1], [200]),
    query([60, 61, 62, 60, 61, 60], [90, 90, 90, 60, 60, 30]),
]
NOTHING = np.zeros(64, dtype=bool)


@torch.no_grad()
def exact(ranker: S2GRRanker, queries: list[Query]) -> torch.Tensor:
    """Log p of the whole catalogue by the formula, history items found one by one."""
    assert ranker.repeat is not None
    everything = torch.arange(64).expand(len(queries), -1)
    model = score_items(GeneratorSteps(ranker.model, ranker.encode(queries)), ranker.trie, ranker.bias, everything)
    history = history_items(queries, ranker.repeat.half_life_days, ranker.recent)
    log_copy, gate = ranker.repeat.log_copy(history, model.gather(1, history.items.clamp(min=0)))
    rows = []
    for row in range(len(queries)):
        copied = {int(item): float(value) for item, value in zip(history.items[row], log_copy[row], strict=True)}
        g = torch.sigmoid(gate[row])
        probs = [
            (1 - g) * model[row, item].double().exp() + g * np.exp(copied.get(item, -np.inf)) for item in range(64)
        ]
        rows.append(torch.stack(probs).log())
    return torch.stack(rows)


def test_both_paths_together_are_a_distribution(ranker: S2GRRanker) -> None:
    """Probabilities of the catalogue sum to one for every user."""
    torch.testing.assert_close(
        exact(ranker, QUERIES).exp().sum(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("beam_width", [64, 8])
def test_ranking_is_exhaustive_scoring(ranker: S2GRRanker, beam_width: int) -> None:
    """Scores are exact at any beam width, history items are always candidates; at full width so is the order."""
    expected = exact(ranker, QUERIES)

    for row, ranking in enumerate(ranker.rank(QUERIES, beam_width=beam_width, blocked=NOTHING)):
        torch.testing.assert_close(
            torch.from_numpy(ranking.scores), expected[row, ranking.items].float(), atol=1e-4, rtol=1e-4
        )
        if beam_width == 64:
            best = expected[row].topk(10)
            torch.testing.assert_close(torch.from_numpy(ranking.scores), best.values.float(), atol=1e-4, rtol=1e-4)


def test_a_history_item_outside_the_beam_is_still_a_candidate(ranker: S2GRRanker) -> None:
    """With one beam the own, often bought items come out all the same."""
    ranking = ranker.rank(QUERIES[2:], beam_width=1, blocked=NOTHING)[0]

    assert {60, 61, 62} <= set(ranking.items.tolist())


def test_excluded_history_is_gone_and_a_neighbour_keeps_its_own(ranker: S2GRRanker) -> None:
    """One batch, two wishes; the excluding query's scores are the generator's alone."""
    mixed = [replace(QUERIES[0], exclude_seen=True), QUERIES[2]]
    first, second = ranker.rank(mixed, beam_width=64, blocked=NOTHING)
    alone = ranker.rank(mixed[:1], beam_width=64, blocked=NOTHING)[0]

    assert not {3, 9, 40, 41} & set(first.items.tolist())
    assert len(first.items) == 10
    assert {60, 61, 62} & set(second.items.tolist())
    np.testing.assert_allclose(first.scores, alone.scores, atol=1e-5)
    np.testing.assert_array_equal(first.items, alone.items)


def test_a_blocked_item_comes_out_of_neither_path(ranker: S2GRRanker) -> None:
    """A takedown holds for the own history too."""
    blocked = NOTHING.copy()
    blocked[[60, 61]] = True

    ranking = ranker.rank(QUERIES[2:], beam_width=64, blocked=blocked)[0]

    assert not {60, 61} & set(ranking.items.tolist())
    assert 62 in ranking.items.tolist()


def test_the_features_of_a_history_by_hand() -> None:
    """Counts are baskets, ages are from now, the last basket is marked."""
    found = history_items([query([3, 9, 3, 40], [40, 40, 10, 10])], half_life_days=30.0, recent=np.arange(64) / 10)

    assert found.items.tolist() == [[3, 9, 40]]
    decayed = [0.5 ** (40 / 30) + 0.5 ** (10 / 30), 0.5 ** (40 / 30), 0.5 ** (10 / 30)]
    expected = np.stack([
        np.log([3.0, 2.0, 2.0]), np.log(np.array(decayed) + 1e-3), np.log([11.0, 41.0, 11.0]),
        [1.0, 0.0, 1.0], [0.3, 0.9, 4.0],
    ], axis=1)  # fmt: skip
    np.testing.assert_allclose(found.features[0].numpy(), expected)


def test_learning_finds_what_made_the_baskets() -> None:
    """Targets drawn from a known path: the learnt one explains them no worse than the truth."""
    rng = np.random.default_rng(0)
    queries = [
        query(rng.integers(0, 64, 12).tolist(), np.sort(rng.integers(1, 300, 12))[::-1].tolist()) for _ in range(400)
    ]
    history = history_items(queries, 120.0, np.zeros(64))
    truth = RepeatPath((2.0, 0.5, 0.0, 1.0, 0.0, 0.0), (0.4, 0.0, 0.0, 0.0, 0.0, 0.0), 120.0)
    uniform = torch.full(history.items.shape, -np.log(64.0)).masked_fill(history.items == NONE, -torch.inf)
    log_copy, gate = truth.log_copy(history, uniform)
    targets = torch.from_numpy(rng.integers(0, 64, (400, 5)))
    for row in range(400):
        copied = torch.multinomial(
            log_copy[row].exp(), 5, replacement=True, generator=torch.Generator().manual_seed(row)
        )
        use = torch.from_numpy(rng.random(5)) < gate[row].sigmoid()
        targets[row] = torch.where(use, history.items[row, copied], targets[row])

    learnt, nats = fit_repeat_path(
        history, uniform, targets, torch.full(targets.shape, -np.log(64.0)), half_life_days=120.0
    )
    _, learnt_gate = learnt.log_copy(history, uniform)

    assert float(learnt_gate.sigmoid().mean()) == pytest.approx(float(gate.sigmoid().mean()), abs=0.05)
    assert learnt.copy_weights[0] == pytest.approx(2.0, abs=0.7)
    assert nats < np.log(64)


def test_a_gate_shut_leaves_the_generator_alone(ranker: S2GRRanker) -> None:
    """g = 0 turns the path off: scores are the generator's."""
    assert ranker.repeat is not None
    shut = replace(ranker.repeat, gate_weights=(-1e4, 0.0, 0.0, 0.0, 0.0, 0.0))
    without = S2GRRanker.of(ranker.model, ranker.catalog, ranker.trie, ranker.bias, None)
    closed = S2GRRanker.of(ranker.model, ranker.catalog, ranker.trie, ranker.bias, shut)

    for one, other in zip(
        without.rank(QUERIES, beam_width=64, blocked=NOTHING),
        closed.rank(QUERIES, beam_width=64, blocked=NOTHING),
        strict=True,
    ):
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_the_path_survives_its_file(world: Any, codebook_config: S2GRCodebookConfig, tmp_path: Path) -> None:
    """What was learnt is what is opened, to the last bit."""
    training = S2GRTrainingConfig(epochs=1, batch_users=16)
    system = S2GRSystem(codebook_config, S2GRModelConfig(dim=16, ff_dim=32), training, RepeatConfig())
    summary = system.fit(world.inputs(), tmp_path)
    opened = system.open(tmp_path / "model", world.catalog).repeat

    assert opened == RepeatPath(
        **{name: tuple(v) if isinstance(v, tuple | list) else v for name, v in summary["repeat"]["path"].items()}
    )


def test_the_offset_that_ranks_best_wins() -> None:
    """One row buys its own item again while the generator is sure of a new one: only a raised gate puts it first."""
    history = history_items([query([5], [10])], 120.0, np.zeros(64))
    shy = RepeatPath((0.0,) * 6, (-0.8, 0.0, 0.0, 0.0, 0.0, 0.0), 120.0)
    new = [Ranking(np.array([7]), np.array([np.log(0.9)], dtype=np.float32), 1)]

    path, offset, ndcg = with_best_offset(shy, history, torch.tensor([[np.log(1e-6)]]), new, torch.tensor([[5]]), k=1)

    assert (offset, ndcg) == (1.0, 1.0)
    assert path.gate_weights[0] == pytest.approx(0.2)


def test_an_offset_that_does_not_help_is_zero() -> None:
    """Of equally good offsets the smallest, which is the likelihood's own."""
    history = history_items([query([5], [10])], 120.0, np.zeros(64))
    path = RepeatPath((0.0,) * 6, (3.0, 0.0, 0.0, 0.0, 0.0, 0.0), 120.0)
    new = [Ranking(np.array([7]), np.array([np.log(0.9)], dtype=np.float32), 1)]

    assert with_best_offset(path, history, torch.tensor([[-9.0]]), new, torch.tensor([[5]]), k=1)[1] == 0.0


def test_recent_counts_are_the_catalogues_at_another_day(world: Any) -> None:
    """Baskets of the 28 days before, that day's own left out; counted by brute force."""
    day = date(2010, 9, 15)
    histories = histories_of(world.baskets, world.catalog)
    counts = recent_counts(histories, 64, (day - date(1970, 1, 1)).days)
    window = world.baskets.filter((pl.col("day") < day) & (pl.col("day") >= day - timedelta(days=28)))

    expected = [sum(item in basket for basket in window["item_ids"].to_list()) for item in world.catalog.item_ids]

    assert counts.tolist() == expected
    assert sum(expected) > 0
