"""Top-k lists and ranks equal a full sort by score, popularity and index."""

import numpy as np
import pytest

from sidrec.evaluation.ranking import TieOrder


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 4, 11, 30])
def test_lists_equal_a_plain_sort(seed: int, k: int) -> None:
    """Scores and popularity full of ties: higher score, then higher popularity, then lower index."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, size=(7, 11)).astype(float)
    popularity = generator.integers(0, 3, size=11)
    expected = [sorted(range(11), key=lambda i: (-row[i], -popularity[i], i))[:k] for row in scores]

    assert TieOrder(popularity).top(scores, k).tolist() == expected


def test_excluded_items_are_never_listed() -> None:
    """-inf leaves an item out, and the places it would have had stay empty."""
    scores = np.array([[1.0, -np.inf, 3.0, -np.inf]])

    assert TieOrder(np.array([9, 9, 9, 9])).top(scores, 3).tolist() == [[2, 0, -1]]


@pytest.mark.parametrize("seed", range(5))
def test_a_rank_is_the_place_in_a_plain_sort(seed: int) -> None:
    """Of every item in turn, among scores and popularity full of ties and with excluded items."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, size=(7, 11)).astype(float)
    scores[generator.random(scores.shape) < 0.2] = -np.inf
    popularity = generator.integers(0, 3, size=11)
    order = TieOrder(popularity)
    expected = [sorted(range(11), key=lambda i: (-row[i], -popularity[i], i)) for row in scores]

    for item in range(11):
        ranks = order.ranks(scores, np.full(7, item))

        assert ranks.tolist() == [row.index(item) + 1 for row in expected]
