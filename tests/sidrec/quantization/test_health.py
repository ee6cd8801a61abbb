"""Health figures agree with tables worked by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.quantization.health import codebook_health, gini, level_health, sid_health


def test_level_table_worked_by_hand() -> None:
    """Counts 4, 2, 2, 0 of four codes."""
    health = level_health(np.array([0, 0, 0, 0, 1, 1, 2, 2]), 4)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)  # shares 1/2, 1/4, 1/4

    assert health == {
        "codebook_size": 4,
        "used_codes": 3,
        "dead_codes": 1,
        "utilisation": 0.75,
        "perplexity": pytest.approx(2 * math.sqrt(2)),
        "normalised_entropy": pytest.approx(entropy / math.log(4)),
        "gini": pytest.approx(0.375),  # mean |difference| over ordered pairs is 24/16, over 2 x mean 2
        "max_bucket": 4,
        "mean_bucket": pytest.approx(8 / 3),
    }


def test_even_and_one_sided_usage_are_the_extremes() -> None:
    """All alike: perplexity K, entropy 1, Gini 0. All on one code: perplexity 1, entropy 0, Gini (K-1)/K."""
    even, single = level_health(np.arange(40) % 8, 8), level_health(np.zeros(40, dtype=np.int64), 8)

    assert (even["perplexity"], even["normalised_entropy"]) == (pytest.approx(8), pytest.approx(1))
    assert even["gini"] == pytest.approx(0)
    assert (single["perplexity"], single["normalised_entropy"]) == (pytest.approx(1), 0)
    assert single["gini"] == pytest.approx(7 / 8)
    assert single["dead_codes"] == 7


def test_sid_table_worked_by_hand() -> None:
    """Six items: three alone, three on one semantic ID."""
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 1], [1, 1]])

    assert sid_health(codes) == {
        "items": 6,
        "distinct": 4,
        "collision_rate": pytest.approx(1 / 3),
        "uniquely_identified": 0.5,
        "max_bucket": 3,
        "distinct_prefixes": [2, 4],
    }


def test_no_items_have_no_collisions() -> None:
    """An empty catalogue is healthy and divides nothing by zero."""
    health = codebook_health(np.zeros((0, 2), dtype=np.int32), 4)

    assert health["collision_rate"] == 0
    assert [level["dead_codes"] for level in health["levels"]] == [4, 4]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12))
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    """Against the definition: mean |x - y| over all ordered pairs, over twice the mean."""
    mean = sum(counts) / len(counts)
    difference = sum(abs(x - y) for x, y in itertools.product(counts, repeat=2)) / len(counts) ** 2

    assert gini(np.array(counts)) == pytest.approx(difference / (2 * mean) if mean else 0.0)


def test_every_level_has_its_own_row() -> None:
    """Levels are numbered from the coarsest, each with its own counts."""
    health = codebook_health(np.array([[0, 1], [0, 0], [0, 1]]), 2)

    assert [(level["level"], level["used_codes"]) for level in health["levels"]] == [(0, 1), (1, 2)]
