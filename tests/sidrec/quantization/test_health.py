"""Health figures agree with tables worked by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.quantization.health import (
    chance_information,
    codebook_health,
    gini,
    level_health,
    load_balance,
    mutual_information,
    prefix_stability,
    sid_health,
    weighted_health,
)


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
        "entropy": pytest.approx(entropy),
        "normalised_entropy": pytest.approx(entropy / math.log(4)),
        "gini": pytest.approx(0.375),  # mean |difference| over ordered pairs is 24/16, over 2 x mean 2
        "largest_share": 0.5,
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
        "no_collision_rate": pytest.approx(2 / 3),
        "uniquely_identified": 0.5,
        "max_bucket": 3,
        "gini": 0.25,  # counts 1, 1, 1, 3
        "entropy": pytest.approx(0.5 * np.log(6) + 0.5 * np.log(2)),
        "max_entropy": pytest.approx(np.log(6)),
        "entropy_ratio": pytest.approx((0.5 * np.log(6) + 0.5 * np.log(2)) / np.log(6)),
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


def test_weighted_usage_worked_by_hand() -> None:
    """Three items on codes 0, 0 and 1 of four, weights 1, 2, 1: shares .75 and .25; a code without weight is dead."""
    health = weighted_health(np.array([0, 0, 1, 2]), 4, np.array([1.0, 2.0, 1.0, 0.0]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))

    assert (health["used_codes"], health["dead_codes"], health["utilisation"]) == (2, 2, 0.5)
    assert health["largest_share"] == 0.75
    assert health["entropy"] == pytest.approx(entropy)
    assert health["normalised_entropy"] == pytest.approx(entropy / np.log(4))
    assert health["gini"] == pytest.approx(0.625)  # shares .75, .25, 0, 0: mean |difference| .3125, mean .25
    assert health["perplexity"] == pytest.approx(np.exp(entropy))


def test_equal_weights_count_as_items_do() -> None:
    """Traffic that is the same for every item changes no figure."""
    codes = np.random.default_rng(0).integers(0, 16, 300)
    plain, weighted = level_health(codes, 16), weighted_health(codes, 16, np.full(300, 2.5))

    for name in ("utilisation", "perplexity", "normalised_entropy", "gini"):
        assert weighted[name] == pytest.approx(plain[name])


def test_prefix_stability_worked_by_hand() -> None:
    """Of three items one keeps all, one its first code, one nothing; their traffic is 1, 1, 2."""
    before = np.array([[0, 0], [1, 1], [2, 2]])
    stability = prefix_stability(before, np.array([[0, 0], [1, 9], [8, 2]]), np.array([1.0, 1.0, 2.0]))
    longer = prefix_stability(before, np.array([[0, 0, -1], [1, 1, 5], [2, 2, -1]]), np.ones(3))

    assert stability["items"] == pytest.approx([2 / 3, 1 / 3])
    assert stability["traffic"] == [0.5, 0.25]
    assert longer["items"] == pytest.approx([1.0, 1.0, 2 / 3])  # only the item with an extra code has another one


def test_a_column_that_others_need_moves_nobody() -> None:
    """Two items keep their semantic IDs when a wider table pads them; without traffic every item counts alike."""
    before = np.array([[0, 0], [1, 1]])
    stability = prefix_stability(before, np.array([[0, 0, -1], [1, 1, -1]]), np.zeros(2))

    assert stability == {"items": [1.0, 1.0, 1.0], "traffic": [1.0, 1.0, 1.0]}


def test_mutual_information_worked_by_hand() -> None:
    """A slot says all about its copy and nothing about an independent one."""
    grid = np.array([[a, a, b] for a in range(4) for b in range(4)])
    information = mutual_information(grid, 4)

    np.testing.assert_allclose(information, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12)


def test_chance_lifts_the_information_of_independent_slots() -> None:
    """Independent slots of 256 codes over 2,000 items look related; shuffled ones say how much of that is chance."""
    codes = np.random.default_rng(0).integers(0, 256, (2_000, 2))
    copies = np.repeat(codes[:, :1], 2, axis=1)

    assert mutual_information(codes, 256)[0, 1] > 0.4
    assert chance_information(codes, 256) == pytest.approx(mutual_information(codes, 256)[0, 1], abs=0.01)
    assert chance_information(copies, 256) < 0.7
    assert chance_information(codes[:, :1], 256) == 0.0


def test_load_balance_worked_by_hand() -> None:
    """Loads 3 and 1 are shares .75 and .25, Gini .25."""
    assert load_balance(np.array([3.0, 1.0])) == {"shares": [0.75, 0.25], "largest_share": 0.75, "gini": 0.25}
