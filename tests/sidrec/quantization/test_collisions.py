"""Colliding items part within their prefix, at little cost and in order of rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sidrec.quantization.collisions import resolve_collisions, sinkhorn_plan

SETTINGS = {"epsilon": 0.003, "iterations": 50}


@given(st.integers(1, 40), st.integers(1, 3), st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_prefixes_stay_and_nobody_shares_what_could_be_free(items: int, prefixes: int, size: int, seed: int) -> None:
    """Prefixes never change; an item still collides only where its prefix has more items than codes."""
    random = np.random.default_rng(seed)
    codes = np.stack([random.integers(0, prefixes, items), random.integers(0, 2, items)], axis=1).astype(np.int32)
    residuals, codewords = random.normal(size=(items, 3)), random.normal(size=(size, 3))
    resolved = resolve_collisions(
        codes, residuals.astype(np.float32), codewords.astype(np.float32), random.integers(0, 9, items), **SETTINGS
    )

    np.testing.assert_array_equal(resolved.codes[:, 0], codes[:, 0])
    surplus = 0
    for prefix in range(prefixes):
        members = resolved.codes[resolved.codes[:, 0] == prefix]
        assert len(np.unique(members[:, 1])) == min(len(members), size)
        surplus += max(0, len(members) - size)
    assert resolved.left == surplus
    assert resolved.moved == int((resolved.codes[:, 1] != codes[:, 1]).sum())


def test_items_that_collide_with_nobody_keep_their_codes() -> None:
    """Only the colliding pair is touched, and it takes no code that another item of the prefix has."""
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]], dtype=np.int32)
    line = np.arange(4, dtype=np.float32)[:, None]
    resolved = resolve_collisions(codes, np.zeros((4, 1), dtype=np.float32), line, np.array([1, 5, 0, 0]), **SETTINGS)

    # Item 1 ranks first and keeps code 0; code 1 is item 2's, so item 0 takes the next nearest.
    assert resolved.codes.tolist() == [[0, 2], [0, 0], [0, 1], [1, 0]]
    assert (resolved.moved, resolved.left) == (1, 0)


def test_rank_decides_who_keeps_the_code_and_the_index_breaks_ties() -> None:
    """Equal items: the popular one keeps the nearest code; of equally popular ones the first does."""
    codes = np.zeros((3, 1), dtype=np.int32)
    line = np.arange(3, dtype=np.float32)[:, None]
    same = np.zeros((3, 1), dtype=np.float32)

    assert resolve_collisions(codes, same, line, np.array([0, 1, 9]), **SETTINGS).codes[:, 0].tolist() == [2, 1, 0]
    assert resolve_collisions(codes, same, line, np.array([4, 4, 4]), **SETTINGS).codes[:, 0].tolist() == [0, 1, 2]


def test_an_overfull_prefix_leaves_its_least_popular_items() -> None:
    """Three items on two codes: the lowest ranked keeps its code and still collides."""
    codes = np.zeros((3, 1), dtype=np.int32)
    line = np.arange(2, dtype=np.float32)[:, None]
    resolved = resolve_collisions(codes, np.zeros((3, 1), dtype=np.float32), line, np.array([5, 1, 3]), **SETTINGS)

    assert resolved.left == 1
    assert resolved.codes[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_is_the_optimal_assignment_when_epsilon_is_small(seed: int) -> None:
    """Its largest entries are the matching of least total cost, found exactly by the Hungarian method."""
    costs = np.random.default_rng(seed).random((6, 9))
    rows, columns = linear_sum_assignment(costs)

    plan = sinkhorn_plan(costs, epsilon=0.003, iterations=3000)

    np.testing.assert_array_equal(plan.argmax(axis=1)[rows], columns)


def test_the_plan_gives_each_item_once_and_fills_no_code_twice() -> None:
    """Rows sum to 1; no column exceeds 1 by more than the iterations leave."""
    plan = sinkhorn_plan(np.random.default_rng(0).random((5, 7)), epsilon=0.1, iterations=500)

    np.testing.assert_allclose(plan.sum(axis=1), 1, rtol=1e-6)
    assert plan.sum(axis=0).max() < 1 + 1e-6


def test_equal_costs_and_a_full_house_are_no_special_case() -> None:
    """All costs zero, or as many items as codes, still give a plan of finite numbers."""
    assert np.isfinite(sinkhorn_plan(np.zeros((3, 5)), **SETTINGS)).all()
    full = sinkhorn_plan(np.random.default_rng(1).random((4, 4)), epsilon=0.05, iterations=500)
    np.testing.assert_allclose(full.sum(axis=0), 1, rtol=1e-3)
    with pytest.raises(ValueError, match="5 items do not fit on 3 codes"):
        sinkhorn_plan(np.zeros((5, 3)), **SETTINGS)


def test_resolution_costs_little_more_than_the_optimum() -> None:
    """The total cost of the seats lies within 10 % of the Hungarian optimum on a crowded prefix."""
    random = np.random.default_rng(3)
    residuals, codewords = (
        random.normal(size=(40, 4)).astype(np.float32),
        random.normal(size=(64, 4)).astype(np.float32),
    )
    costs = np.square(residuals[:, None] - codewords[None]).sum(axis=-1)
    codes = np.zeros((40, 1), dtype=np.int32)
    resolved = resolve_collisions(codes, residuals, codewords, np.zeros(40, dtype=np.int64), **SETTINGS)
    rows, columns = linear_sum_assignment(costs)

    assert costs[np.arange(40), resolved.codes[:, 0]].sum() <= 1.1 * costs[rows, columns].sum()
