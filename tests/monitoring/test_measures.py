"""Measures of requests and answers against the weeks before, and the two-of-three rule."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from monitoring import aggregate, measures
from monitoring.measures import Measure
from sidrec import exposure
from sidrec.exposure import Exposure
from sidrec.recipe import MonitoringConfig
from tests.monitoring.drift_world import BUNDLE_ID, at, exposed

CONFIG = MonitoringConfig()  # type: ignore[call-arg]


def said(rng: np.random.Generator) -> list[dict[str, str | float]]:
    """Return what a search may say of itself."""
    return [{"name": "order_entropy", "value": float(rng.uniform(0, 1))}]


def requests(number: int, seed: int, **changes: object) -> list[Exposure]:
    """Return requests whose items, history lengths and scores vary by chance alone."""
    rng = np.random.default_rng(seed)
    return [
        exposed(
            f"{seed}-{index}",
            f"u{index}",
            at(date(2010, 11, 1), index),
            [f"i{item}" for item in rng.choice(16, 4, replace=False)],
            **({"history_length": int(rng.integers(1, 60)), "known_items": 1, "stats": said(rng)} | changes),
        )
        for index in range(number)
    ]


def counted(rows: list[Exposure]) -> pl.DataFrame:
    return aggregate.request_counts(exposure.frame(rows).lazy(), BUNDLE_ID)


def by_kind(before: list[Exposure], now: list[Exposure]) -> dict[str, Measure]:
    return {measure.kind: measure for measure in measures.measure_week(counted(before), counted(now), CONFIG, seed=0)}


def test_equal_traffic_crosses_nothing() -> None:
    """Two samples of the same traffic stay under every threshold, code levels included."""
    seen = by_kind(requests(1000, 1), requests(1000, 2))

    assert {"history_length", "source", "served_item", "served_code/0", "served_code/1"} <= set(seen)
    assert [kind for kind, measure in seen.items() if measure.crossed] == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("history_length", {"history_length": 3}),
        ("history_source", {"history_source": "none"}),
        ("source", {"source": "cold"}),
        ("feature_age_days", {"feature_age_s": 40 * 86_400}),
        ("served_item", {"item_ids": ["i1", "i2", "i3", "i4"]}),
        ("served_code/1", {"semantic_ids": [[0, 3], [1, 3], [2, 3], [3, 3]]}),
        ("search/order_entropy", {"stats": [{"name": "order_entropy", "value": 1.4}]}),
        ("top_score", {"scores": [-9.0, -9.5, -10.0, -11.0]}),
    ],
)
def test_each_measure_sees_its_own_fault(kind: str, changes: dict[str, object]) -> None:
    """A fault in one column is over the threshold of the measure that watches it."""
    before = requests(1000, 1)
    now = [replace(row, **changes) for row in requests(1000, 2)]  # type: ignore[arg-type]

    assert by_kind(before, now)[kind].crossed


def test_known_share_sees_histories_of_unknown_items() -> None:
    """Items dropped from histories, such as after a new range, show as a lower known share."""
    before = [replace(row, known_items=row.history_length) for row in requests(500, 1)]
    now = [replace(row, known_items=row.history_length // 2) for row in requests(500, 2)]

    assert by_kind(before, now)["known_share"].crossed


def test_codes_of_another_bundle_are_not_compared() -> None:
    """The same code means another item in another codebook, so only one bundle's codes count."""
    seen = by_kind(requests(500, 1, bundle_id="b-another00000"), requests(500, 2))

    assert not [kind for kind in seen if kind.startswith("served_code")]
    assert "served_item" in seen


def test_what_searches_of_another_bundle_say_is_not_compared() -> None:
    """Another system's numbers may mean other things under one name."""
    other = requests(1000, 2, bundle_id="b-ffffffffffff")

    assert "search/order_entropy" not in by_kind(requests(1000, 1), other)


def test_too_few_requests_measure_nothing() -> None:
    """Below `min_requests` on either side there is no number to be misread."""
    assert by_kind(requests(CONFIG.min_requests - 1, 1), requests(1000, 2)) == {}
    assert by_kind(requests(1000, 1), requests(CONFIG.min_requests - 1, 2)) == {}


def test_scores_of_cold_answers_are_no_log_probabilities() -> None:
    """Only the model's scores are compared."""
    assert aggregate.counts_of(counted(requests(5, 1, source="cold")), "top_score") == {}


def test_feature_psi_by_hand() -> None:
    """Two equal value bins of the reference, all of the current in the upper one."""
    seen = measures.feature_psi({"1": 5, "2": 5}, {"2": 10}, "category")

    assert seen == pytest.approx((1e-4 - 0.5) * np.log(1e-4 / 0.5) + 0.5 * np.log(2))


def test_values_are_ordered_as_numbers() -> None:
    """9 lies below 10 though "9" does not: what moves from 10 to 9 and from 1 to 2 stays in its bin of two values."""
    before = {str(value): 10 for value in range(1, 21)}
    now = before | {"9": 20, "10": 0, "1": 0, "2": 20}

    assert measures.feature_psi(before, now, "value") == 0


def test_values_beyond_the_reference_have_bins_of_their_own() -> None:
    """A reference of one value throughout does not swallow every other value."""
    above = measures.feature_psi({"3": 10}, {"40": 10}, "value")
    below = measures.feature_psi({"3": 10}, {"1": 10}, "value")

    assert above == below == pytest.approx(2 * (1 - 1e-4) * np.log(1e4))


@pytest.mark.parametrize(
    ("crossed", "warns"),
    [
        ((True, False, False), False),
        ((True, True, False), True),
        ((True, False, True), True),
        ((False, True, True), False),
    ],
)
def test_two_of_three_weeks_warn(crossed: tuple[bool, bool, bool], warns: bool) -> None:
    """A measure warns when it is over now and was in one of the two weeks before."""
    base = Measure("input", "history_length", "PSI", 0.3, 0.2, 1000, 1000, False)
    weeks = [[replace(base, crossed=over)] for over in crossed]

    [seen] = measures.over_weeks(weeks)

    assert (seen.weeks_crossed, seen.warns) == (sum(crossed), warns)


def test_a_week_without_numbers_is_not_a_quiet_one() -> None:
    """A week that measured nothing is left out of the count."""
    base = Measure("input", "history_length", "PSI", 0.3, 0.2, 1000, 1000, True)

    [seen] = measures.over_weeks([[base], [], [base]])

    assert (seen.weeks_crossed, seen.weeks_measured, seen.warns) == (2, 2, True)


def test_the_table_does_not_grow_with_the_requests() -> None:
    """Ten times the requests make the same table, with ten times the counts."""
    small = requests(300, 1)
    large = [replace(row, request_id=f"{row.request_id}-{copy}") for row in small for copy in range(10)]

    assert counted(large)["key"].equals(counted(small)["key"])
    assert (counted(large)["count"] == 10 * counted(small)["count"]).all()
