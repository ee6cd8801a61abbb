"""Top-k lists equal a full sort by score, popularity and index."""

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
