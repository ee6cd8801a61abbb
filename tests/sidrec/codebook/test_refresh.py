"""A refresh follows the catalogue within its budget, and moves only what pays."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.codebook.config import LifecycleConfig
from sidrec.codebook.items import merge_items
from sidrec.codebook.refresh import cheapest_moves, refresh, within_budget
from sidrec.quantization.quantizer import Quantizer
from tests.codebook_world import DAY, items_of, parent_of, vectors_of


@given(st.integers(0, 80), st.floats(0, 3), st.floats(0, 0.5), st.sampled_from([0.0, 0.01, 0.1]))
@settings(max_examples=15, deadline=None)
def test_the_budget_is_never_exceeded(
    tmp_path_factory: pytest.TempPathFactory, count: int, shift: float, budget: float, epsilon: float
) -> None:
    """Whatever comes, moved traffic stays within the budget, semantic IDs stay unique and rows keep their items."""
    parent, items, vectors = parent_of(tmp_path_factory.mktemp("parent"), 120)
    moved = vectors + 0.2 * np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    merged = merge_items(parent.catalog, pl.concat([items, items_of(count, 120)]), DAY)
    config = LifecycleConfig(churn_budget=budget, epsilon=epsilon)
    made = refresh(parent, merged, np.concatenate([moved, vectors_of(count, seed=9, shift=shift)]), config)
    traffic = merged.table["recent_popularity"].to_numpy()[:120]
    differs = (made.catalog.codes[:120] != parent.catalog.codes).any(axis=1)

    assert traffic[differs].sum() / traffic.sum() <= budget + 1e-9
    assert made.churn == pytest.approx(traffic[differs].sum() / traffic.sum())
    assert made.catalog.item_ids[:120] == parent.catalog.item_ids
    assert len(np.unique(made.catalog.codes, axis=0)) == 120 + count


def test_a_vacated_semantic_id_goes_to_nobody(tmp_path: Path) -> None:
    """Histories still spell it, so no other item may answer to it in this generation."""
    parent, items, vectors = parent_of(tmp_path)
    moved = vectors + 0.3 * np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    merged = merge_items(parent.catalog, pl.concat([items, items_of(40, 200)]), DAY)
    config = LifecycleConfig(churn_budget=0.5)
    made = refresh(parent, merged, np.concatenate([moved, vectors_of(40, seed=2)]), config)
    owner = {tuple(row): item for row, item in zip(parent.catalog.codes.tolist(), parent.catalog.item_ids, strict=True)}
    now = zip(made.catalog.codes.tolist(), made.catalog.item_ids, strict=True)

    assert made.moved.any()
    assert all(owner.get(tuple(row), item) == item for row, item in now)


def test_a_removed_item_keeps_its_semantic_id(tmp_path: Path) -> None:
    """A tombstone has no vector any more and moves nowhere."""
    parent, items, vectors = parent_of(tmp_path)
    merged = merge_items(parent.catalog, items.tail(150), DAY)
    made = refresh(parent, merged, vectors[50:], LifecycleConfig(churn_budget=1.0, epsilon=0.0))

    np.testing.assert_array_equal(made.catalog.codes[:50], parent.catalog.codes[:50])
    assert made.catalog.removed[:50].all()
    assert not made.catalog.removed[50:].any()


def test_nothing_new_moves_next_to_nothing(tmp_path: Path) -> None:
    """On the vectors that the codewords were fitted on, a refresh finds hardly a move that pays."""
    parent, items, vectors = parent_of(tmp_path)
    made = refresh(parent, merge_items(parent.catalog, items, DAY), vectors, LifecycleConfig(epsilon=0.1))

    assert made.churn < 0.02
    assert made.residual["refresh"] <= made.residual["append"] + 1e-6


def test_it_beats_an_append_where_new_groups_came(tmp_path: Path) -> None:
    """Codewords follow the new items: error falls, within the budget; a larger budget lowers it further."""
    parent, items, vectors = parent_of(tmp_path)
    merged = merge_items(parent.catalog, pl.concat([items, items_of(100, 200)]), DAY)
    both = np.concatenate([vectors, vectors_of(100, seed=4, shift=3.0)])
    tight = refresh(parent, merged, both, LifecycleConfig(churn_budget=0.05))
    loose = refresh(parent, merged, both, LifecycleConfig(over_budget="retrain"))

    assert tight.residual["refresh"] < tight.residual["append"]
    assert loose.residual["refresh"] <= tight.residual["refresh"]
    assert loose.churn > 0.05
    assert tight.codebook.generation == 2
    assert tight.codebook.parent == parent.codebook.digest


def test_it_says_what_the_budget_held_back(tmp_path: Path) -> None:
    """With no budget at all nobody who is seen moves, and the sentence says how many would have."""
    parent, items, vectors = parent_of(tmp_path)
    moved = vectors + 0.4 * np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    config = LifecycleConfig(churn_budget=0.0)
    made = refresh(parent, merge_items(parent.catalog, items, DAY), moved, config)

    assert made.churn == 0
    assert made.deferred == made.wanted_moves > 10
    assert f"{made.deferred:,} are deferred" in made.sentence(config)


def test_moves_of_most_gain_a_view_come_first() -> None:
    """By hand: budget .5; gains a view are 10, 4, 2; the second does not fit beside the first, the third does."""
    moves = np.array([True, True, True, False])
    gain, traffic = np.array([4.0, 1.6, 0.2, 9.0]), np.array([0.4, 0.4, 0.1, 0.1])

    assert within_budget(moves, gain, traffic, 0.5).tolist() == [True, False, True, False]
    assert within_budget(moves, gain, traffic, 0.0).tolist() == [False] * 4
    assert within_budget(moves, gain, np.array([0.5, 0.5, 0.0, 0.0]), 0.0).tolist() == [False, False, True, False]


def test_the_longest_prefix_that_is_good_enough_is_kept() -> None:
    """One dimension, by hand: 0.1 stays, 0.9 keeps its first code and moves to a nearer second one, 10.1 moves both."""
    quantizer = Quantizer("residual_kmeans", torch.tensor([[[0.0], [10.0]], [[0.0], [1.0]]]))
    latent, codes = torch.tensor([[0.1], [0.9], [10.1]]), torch.tensor([[0, 0], [0, 0], [0, 0]])

    assert cheapest_moves(quantizer, latent, codes, 0.05).tolist() == [[0, 0], [0, 1], [1, 0]]
    assert cheapest_moves(quantizer, latent, codes, 1.0).tolist() == [[0, 0]] * 3


def test_of_parallel_slots_only_those_move_that_pay() -> None:
    """Two slots, one of which is far off: it moves, the other keeps its code although another is a little nearer."""
    quantizer = Quantizer("mpq", torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))
    latent, codes = torch.tensor([[[1.0], [0.45]]]), torch.tensor([[0, 1]])

    assert quantizer.quantize(latent).codes.tolist() == [[1, 0]]
    assert cheapest_moves(quantizer, latent, codes, 0.1).tolist() == [[1, 1]]
