"""Metrics of a list against a target set, worked by hand."""

from math import log2

import numpy as np
import pytest

from sidrec.evaluation.metrics import (
    capped_recall_at_k,
    hit_matrix,
    hit_rate_at_k,
    max_recall_at_k,
    ndcg_at_k,
    recall_at_k,
    row_metrics,
)

# Row 0: hits at ranks 1, 3 and 6 of 4 targets. Row 1: 1 target, hit at rank 2. Row 2: no hit of 12 targets.
HITS = np.zeros((3, 20), dtype=bool)
HITS[0, [0, 2, 5]] = True
HITS[1, 1] = True
SIZES = np.array([4, 1, 12])


def test_recall_counts_hits_over_targets() -> None:
    """Row 0 finds 2 of 4 in five places and 3 of 4 in ten."""
    assert recall_at_k(HITS, SIZES, 5).tolist() == [0.5, 1.0, 0.0]
    assert recall_at_k(HITS, SIZES, 10).tolist() == [0.75, 1.0, 0.0]


def test_largest_recall_is_below_one_where_targets_outnumber_places() -> None:
    """Ten places can hold 10 of 12 targets."""
    assert max_recall_at_k(SIZES, 10).tolist() == [1.0, 1.0, 10 / 12]


def test_capped_recall_divides_by_what_the_places_can_hold() -> None:
    """With 12 targets, a full list of five is the whole of five."""
    hits = np.ones((1, 20), dtype=bool)

    assert capped_recall_at_k(hits, np.array([12]), 5).tolist() == [1.0]
    assert capped_recall_at_k(HITS, SIZES, 5).tolist() == [0.5, 1.0, 0.0]


def test_hit_rate_asks_for_any_hit() -> None:
    """One hit is enough, none is none."""
    assert hit_rate_at_k(HITS, 5).tolist() == [1.0, 1.0, 0.0]
    assert hit_rate_at_k(HITS, 1).tolist() == [1.0, 0.0, 0.0]


def test_ndcg_divides_by_the_ideal_of_the_set() -> None:
    """Row 0 at 5: gains at ranks 1 and 3 over four hits in a row, since it has four targets."""
    ideal = 1 + 1 / log2(3) + 1 / log2(4) + 1 / log2(5)
    expected = [(1 + 1 / log2(4)) / ideal, 1 / log2(3), 0.0]

    np.testing.assert_allclose(ndcg_at_k(HITS, SIZES, 5), expected, rtol=1e-12)


def test_ndcg_of_one_target_is_the_leave_one_out_value() -> None:
    """A single target at rank r scores 1 / log2(r + 1)."""
    hits = np.eye(20, dtype=bool)
    expected = [1 / log2(rank + 1) if rank <= 10 else 0.0 for rank in range(1, 21)]

    np.testing.assert_allclose(ndcg_at_k(hits, np.ones(20, dtype=int), 10), expected, rtol=1e-12)


def test_ndcg_cuts_its_ideal_at_k() -> None:
    """A perfect first five of twelve targets is 1 at 5."""
    hits = np.zeros((1, 20), dtype=bool)
    hits[0, :5] = True

    assert ndcg_at_k(hits, np.array([12]), 5)[0] == pytest.approx(1.0)
    assert ndcg_at_k(hits, np.array([12]), 10)[0] < 1.0


def test_short_lists_count_their_missing_ranks_as_misses() -> None:
    """A list of three places gets the metrics of the same list padded with misses."""
    short, padded = np.array([[True, False, True]]), np.zeros((1, 20), dtype=bool)
    padded[0, [0, 2]] = True
    expected = row_metrics(padded, np.array([4]))

    for name, values in row_metrics(short, np.array([4])).items():
        np.testing.assert_allclose(values, expected[name], err_msg=name)


def test_hits_are_the_places_that_hold_a_target_of_the_same_row() -> None:
    """Row 0 wants items 1 and 4, row 1 wants 0; item 1 on row 1 is no hit, nor is an empty place."""
    lists = np.array([[1, 2, 4], [1, -1, 0]])
    hits = hit_matrix(lists, np.array([0, 0, 1]), np.array([1, 4, 0]), num_items=5)

    assert hits.tolist() == [[True, False, True], [False, False, True]]


def test_a_target_outside_the_catalogue_is_never_hit() -> None:
    """-1 in a target set does not match -1 in a list, nor the last item of the row before."""
    lists = np.array([[4, -1], [-1, 0]])
    hits = hit_matrix(lists, np.array([0, 1]), np.array([-1, -1]), num_items=5)

    assert not hits.any()
