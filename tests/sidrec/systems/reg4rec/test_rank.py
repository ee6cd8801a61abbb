"""Answers are the best items by the exact scores of the whole catalogue, through the files of a fitted model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sidrec.errors import BundleError
from sidrec.systems.base import MODEL, Query
from sidrec.systems.reg4rec.config import Reg4RecSearchConfig
from sidrec.systems.reg4rec.losses import Tables
from sidrec.systems.reg4rec.model import Paths
from sidrec.systems.reg4rec.rank import Reg4RecRanker, user_salt
from sidrec.systems.reg4rec.train import Reg4RecSystem
from sidrec.systems.repeat import history_items
from tests.sidrec.systems.reg4rec.conftest import system_of
from tests.sidrec.systems.reg4rec.world import prior_by_hand

DAY = 86_400
NOW = 14_914 * DAY
NOTHING = np.zeros(64, dtype=np.bool_)


def query(items: Sequence[int], *, k: int = 64, exclude_seen: bool = False) -> Query:
    basket = np.arange(len(items)) // 2
    times = NOW - (30 - basket) * DAY
    return Query(np.array(items), times, basket, NOW, k=k, exclude_seen=exclude_seen)


QUERIES = [query([1, 2, 9, 40, 1]), query([8]), query([60, 61, 62, 63, 17, 18, 19])]


@pytest.fixture(scope="module")
def fitted(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reg4rec")
    system_of().fit(world.inputs(), folder)
    return folder / "model"


@pytest.fixture(scope="module")
def ranker(world: Any, fitted: Path) -> Reg4RecRanker:
    return system_of().open(fitted, world.catalog)


@torch.no_grad()
def path_score(ranker: Reg4RecRanker, asked: Query, item: int) -> float:
    """Return an item's log-probability by its only path: one token after the other, a batch of one."""
    codes = ranker.sets.codes.tolist()
    memory = ranker.encode([asked])
    paths = Paths(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
    hidden, total, taken = paths.begin(), 0.0, []
    for step in range(3):
        tables = Tables(ranker.sets.codes, torch.zeros(64, dtype=torch.int64), ranker.prior)
        prior = prior_by_hand(tables, 0, {s: codes[item][s] for s in taken})
        log_probs = ranker.model.slot_log_probs(hidden, prior, step)[0, 0]
        slot = max((s for s in range(3) if s not in taken), key=lambda s: float(log_probs[s].max()))
        alike = [own for own in codes if all(own[s] == codes[item][s] for s in taken)]
        left = sorted({own[slot] for own in alike})
        total += float(log_probs[slot, left].log_softmax(dim=0)[left.index(codes[item][slot])])
        taken.append(slot)
        hidden = paths.extend(torch.tensor([[slot]]), torch.tensor([[codes[item][slot]]]))
    return total


def test_a_wide_search_ranks_the_catalogue_by_exact_scores(ranker: Reg4RecRanker) -> None:
    """Without the repeat path; and the scores are a distribution."""
    alone = replace(ranker, repeat=None)
    for asked, ranking in zip(QUERIES, alone.rank(QUERIES, beam_width=64, blocked=NOTHING), strict=True):
        expected = {item: path_score(ranker, asked, item) for item in range(64)}

        assert dict(zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True)) == (
            pytest.approx(expected, abs=1e-4)
        )
        assert np.exp(ranking.scores).sum() == pytest.approx(1, abs=1e-4)
        assert (np.diff(ranking.scores) <= 0).all()
        assert ranking.valid_beams == 64


def test_chosen_items_are_scored_exactly(ranker: Reg4RecRanker) -> None:
    """Lists of different users in one call, padding among them."""
    items = torch.tensor([[3, 40, -1], [8, 9, 10], [0, -1, -1]])
    found = ranker.score(QUERIES, [items, items[:, :1]])
    for row, asked in enumerate(QUERIES):
        for column, item in enumerate(items[row].tolist()):
            expected = -np.inf if item < 0 else path_score(ranker, asked, item)
            assert found[0][row, column].item() == pytest.approx(expected, abs=1e-4)

    torch.testing.assert_close(found[1], found[0][:, :1])


def test_both_paths_together_are_the_mixture_of_their_probabilities(ranker: Reg4RecRanker) -> None:
    """By its definition, item by item; a narrow search still has every item of the history, exactly."""
    assert ranker.repeat is not None
    history = history_items(QUERIES, ranker.repeat.half_life_days, ranker.recent)
    log_copy, gate = ranker.repeat.log_copy(history, ranker.score(QUERIES, [history.items])[0])
    wide = ranker.rank(QUERIES, beam_width=64, blocked=NOTHING)
    narrow = ranker.rank(QUERIES, beam_width=2, blocked=NOTHING)
    for row, asked in enumerate(QUERIES):
        repeat = torch.sigmoid(gate[row]).item()
        copied = dict(zip(history.items[row].tolist(), log_copy[row].exp().tolist(), strict=True))
        expected = {
            item: np.log((1 - repeat) * np.exp(path_score(ranker, asked, item)) + repeat * copied.get(item, 0.0))
            for item in range(64)
        }
        assert dict(zip(wide[row].items.tolist(), wide[row].scores.tolist(), strict=True)) == (
            pytest.approx(expected, abs=1e-4)
        )
        found = dict(zip(narrow[row].items.tolist(), narrow[row].scores.tolist(), strict=True))
        assert set(found) >= set(asked.items.tolist())
        assert found == pytest.approx({item: expected[item] for item in found}, abs=1e-4)


def test_seen_and_blocked_items_are_never_answered_and_move_no_score(ranker: Reg4RecRanker) -> None:
    blocked = NOTHING.copy()
    blocked[[0, 8, 30]] = True
    asked = [replace(own, exclude_seen=True) for own in QUERIES]
    for own, ranking in zip(asked, ranker.rank(asked, beam_width=64, blocked=blocked), strict=True):
        expected = {
            item: path_score(ranker, own, item)
            for item in range(64)
            if not blocked[item] and item not in own.items.tolist()
        }

        assert dict(zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True)) == (
            pytest.approx(expected, abs=1e-4)
        )
    allowed = ranker.rank(QUERIES, beam_width=64, blocked=blocked)
    assert all(not blocked[ranking.items].any() for ranking in allowed)


@pytest.mark.parametrize("search", [{}, {"consistency": 0.6}, {"slots_per_step": 2}, {"consistency": 1.0}])
def test_an_answer_does_not_depend_on_its_neighbours(ranker: Reg4RecRanker, search: dict[str, Any]) -> None:
    """One query alone, and among others of other lengths and wishes."""
    own = replace(ranker, search=Reg4RecSearchConfig(**search))
    mixed = [replace(asked, k=5 + row, exclude_seen=row == 1) for row, asked in enumerate(QUERIES)]
    together = own.rank(mixed, beam_width=10, blocked=NOTHING)
    for asked, ranking in zip(mixed, together, strict=True):
        alone = own.rank([asked], beam_width=10, blocked=NOTHING)[0]

        assert alone.items.tolist() == ranking.items.tolist()
        assert alone.scores == pytest.approx(ranking.scores, abs=1e-5)
        assert len(set(ranking.items.tolist())) == len(ranking.items) == asked.k


def test_pruning_leaves_a_full_list(ranker: Reg4RecRanker) -> None:
    """Where every path is inconsistent, the refill still gives k items, and others than without pruning."""
    strict = replace(ranker, search=Reg4RecSearchConfig(consistency=1.0, prune_from=2), repeat=None)
    plain = replace(ranker, repeat=None)
    asked = [replace(own, k=10) for own in QUERIES]
    pruned = strict.rank(asked, beam_width=20, blocked=NOTHING)

    assert [len(ranking.items) for ranking in pruned] == [10, 10, 10]
    for own, ranking in zip(asked, pruned, strict=True):
        assert ranking.scores.tolist() == pytest.approx(
            [path_score(ranker, own, item) for item in ranking.items.tolist()], abs=1e-4
        )
    assert any(
        one.items.tolist() != other.items.tolist()
        for one, other in zip(pruned, plain.rank(asked, beam_width=20, blocked=NOTHING), strict=True)
    )


def test_a_random_order_is_the_histories_own() -> None:
    assert user_salt(QUERIES).tolist() == user_salt([replace(own, k=3) for own in QUERIES]).tolist()
    assert len(set(user_salt(QUERIES).tolist())) == 3


def test_weights_of_another_system_or_shape_are_refused(world: Any, fitted: Path, tmp_path: Path) -> None:
    for name, change, said in [
        ("kind", ('"reg4rec"', '"s2gr"'), "expected a reg4rec model"),
        ("shape", ('"codebook_size": 8', '"codebook_size": 9'), "of the weights is"),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        for path in fitted.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        header = (folder / MODEL).read_text()
        assert change[0] in header
        (folder / MODEL).write_text(header.replace(*change))
        with pytest.raises(BundleError, match=said):
            Reg4RecSystem.open(system_of(), folder, world.catalog)


def test_every_ranking_says_how_it_was_searched(ranker: Reg4RecRanker) -> None:
    """Alone or in a batch; survival only where paths are pruned."""
    asked = [replace(one, k=5) for one in QUERIES]
    together = ranker.rank(asked, beam_width=20, blocked=NOTHING)
    pruning = replace(ranker, search=Reg4RecSearchConfig(consistency=1.0, prune_from=2))

    assert [set(one.stats) for one in together] == [{"first_slot", "order_entropy"}] * 3
    for one, query_ in zip(together, asked, strict=True):
        assert one.stats == ranker.rank([query_], beam_width=20, blocked=NOTHING)[0].stats
    for one in pruning.rank(asked, beam_width=20, blocked=NOTHING):
        assert 0 <= one.stats["pruning_survival"] <= 1
