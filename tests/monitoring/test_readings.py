"""Every figure of an arm, worked by hand or by the library's own function for one weight an item."""

import numpy as np
import polars as pl
import pytest

from monitoring import readings
from monitoring.readings import CodeSpace
from sidrec.evaluation.coverage import gini
from sidrec.quantization.health import level_health, mutual_information

# Five items of two levels: two share a whole ID, and so all prefixes; one lacks the last code.
CODES = [[0, 1], [0, 1], [0, 2], [3, 0], [2, -1]]
POPULARITY = [50, 1, 1, 1, 7]
SPACE = CodeSpace(
    "b",
    pl.DataFrame(
        {"item_id": [f"i{row}" for row in range(5)], "codes": CODES, "popularity": POPULARITY},
        schema_overrides={"codes": pl.List(pl.Int32)},
    ),
    {0: 4, 1: 4},
)


def test_codes_by_hand() -> None:
    """Served 4, 0, 2, 2, 0: masses 6 and 2 of level 0's four codes; six of eight places share their first code."""
    found = readings.code_readings("served", SPACE, np.array([4.0, 0, 2, 2, 0]))
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))

    assert found["served/0/utilisation"].value == 0.5
    assert found["served/0/dead_codes"].value == 2
    assert found["served/0/largest_share"].value == 0.75
    assert found["served/0/normalised_entropy"].value == pytest.approx(entropy / 2)
    assert found["served/0/perplexity"].value == pytest.approx(2**entropy)
    assert found["served/0/collision_share"].value == 0.75
    assert found["served/1/collision_share"].value == 0.5
    assert {reading.n for reading in found.values()} == {8}


def test_a_missing_code_counts_in_no_level() -> None:
    """The item without a last code is of level 0 only."""
    found = readings.code_readings("clicked", SPACE, np.array([0.0, 0, 0, 1, 9]))

    assert (found["clicked/0/largest_share"].n, found["clicked/1/largest_share"].n) == (10, 1)


def test_the_catalogue_is_what_the_library_measures() -> None:
    """Each item once: the figures of `sidrec.quantization.health`."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, (300, 3))
    catalogue = pl.DataFrame({"item_id": [str(row) for row in range(300)], "codes": codes.tolist()})
    found = readings.code_readings("catalogue", CodeSpace("b", catalogue, dict.fromkeys(range(3), 8)), np.ones(300))
    expected = level_health(codes[:, 1], 8)

    for name in ("utilisation", "dead_codes", "perplexity", "normalised_entropy", "largest_share"):
        assert found[f"catalogue/1/{name}"].value == pytest.approx(expected[name])
    overlaps = mutual_information(codes, 8)[np.triu_indices(3, 1)]
    assert found["catalogue/slot_overlap"].value == pytest.approx(overlaps.max())


def test_overlap_weighs_items_by_traffic() -> None:
    """An item that is served three times is three items."""
    rng = np.random.default_rng(0)
    codes, weights = rng.integers(0, 4, (50, 3)), rng.integers(0, 4, 50)

    repeated = mutual_information(np.repeat(codes, weights, axis=0), 4)[np.triu_indices(3, 1)]

    np.testing.assert_allclose(readings.slot_overlaps(codes, weights.astype(float)), repeated)


def test_lists_by_hand() -> None:
    """Two of five items shown, six of eight places by the one head item."""
    weights = np.array([6.0, 2, 0, 0, 0])
    found = {name: one.value for name, one in readings.list_readings(SPACE, weights).items()}

    assert found["coverage"] == 0.4
    assert found["head_share"] == 0.75
    assert found["served_popularity"] == pytest.approx((6 * 50 + 2 * 1) / 8)
    assert found["served_gini"] == pytest.approx(gini(weights.astype(np.int64)))


def test_fewer_places_show_fewer_kinds() -> None:
    """Expected kinds among some draws are those of drawing them, within the error of a mean of 2,000."""
    mass = np.array([50.0, 30, 15, 4, 1])
    rng = np.random.default_rng(0)
    drawn = [(rng.multinomial(10, mass / 100) > 0).sum() for _ in range(2_000)]

    assert readings.expected_kinds(mass, 10) == pytest.approx(np.mean(drawn), abs=0.06)
    assert readings.expected_kinds(mass, None) == readings.expected_kinds(mass, 1_000) == 5


def test_answers_by_hand() -> None:
    """Shares of what is counted, a mean age of (0 x 1 + 10 x 3) / 4 days, and what searches say."""
    rows = [
        ("null_history", "yes", 1), ("null_history", "no", 3), ("short_list", "no", 4), ("source", "cold", 1),
        ("source", "model", 2), ("source", "degraded", 1), ("feature_age_days", "0", 1), ("feature_age_days", "10", 3),
        ("tie_order", "broken", 1), ("tie_order", "kept", 1), ("search/rationale_tokens", "4.0", 1),
        ("search/rationale_tokens", "8.0", 1), ("search/rationale_ended", "1.0", 2),
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema=["kind", "key", "count"], orient="row")
    found = {name: one.value for name, one in readings.answer_readings(table).items()}

    assert found == {
        "null_history": 0.25, "short_list": 0.0, "cold_share": 0.25, "degraded_share": 0.25, "feature_age": 7.5,
        "broken_ties": 0.5, "search/rationale_tokens/mean": 6.0, "search/rationale_tokens/entropy": 1.0,
        "search/rationale_ended/mean": 1.0, "search/rationale_ended/entropy": 0.0,
    }  # fmt: skip


def test_nothing_served_has_no_figures() -> None:
    """A figure that no row tells is absent, never 0."""
    assert readings.code_readings("served", SPACE, np.zeros(5)) == {}
    assert readings.list_readings(SPACE, np.zeros(5)) == {}
