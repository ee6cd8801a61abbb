"""The report shows three views and raises one alarm, only where new items really do not fit."""

import json

import numpy as np
import pytest

from sidrec.codebook.config import AlarmConfig
from sidrec.codebook.health_report import exceedance, health_report, residual_figures, span_alarm, with_served

ALARM = AlarmConfig(min_new_items=20, residual_ratio=1.5)


def errors(mean: float, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4.0, mean / 4, size=count).astype(np.float32)


def test_views_differ_where_traffic_does() -> None:
    """Catalogue, traffic and served weigh the same codes; before anything was served, the view says so."""
    codes = np.array([[0, 0], [1, 0], [2, 1], [3, 1]])
    report = health_report(
        quantized=codes, final=codes, codebook_size=4, traffic=np.array([1, 0, 0, 1]), alarm=ALARM,
        fitted_errors=np.full(4, 0.1),
    )  # fmt: skip
    served = health_report(
        quantized=codes, final=codes, codebook_size=4, traffic=np.ones(4), served=np.array([9, 0, 0, 0]), alarm=ALARM
    )

    assert [level["utilisation"] for level in report["views"]["catalogue"]] == [1.0, 0.5]
    assert [level["utilisation"] for level in report["views"]["traffic"]] == [0.5, 0.5]
    assert "absent" in report["views"]["served"]
    assert [level["dead_codes"] for level in served["views"]["served"]] == [3, 3]
    assert json.loads(json.dumps(report)) == report


def test_the_served_view_comes_later() -> None:
    """When answers were counted, the report's other figures stay and the served view is filled."""
    codes = np.array([[0, 0], [1, 0], [2, 1], [3, 1]])
    report = health_report(quantized=codes, final=codes, codebook_size=4, traffic=np.ones(4), alarm=ALARM)
    later = with_served(report, codes, 4, np.array([0, 5, 0, 5]))

    assert [level["utilisation"] for level in later["views"]["served"]] == [0.5, 0.5]
    assert later["views"]["catalogue"] == report["views"]["catalogue"]
    assert "absent" in report["views"]["served"]


def test_identity_before_and_after_resolution() -> None:
    """Two items collide as quantized; as published none does."""
    quantized, final = np.array([[0, 0], [0, 0]]), np.array([[0, 0], [0, 1]])
    report = health_report(quantized=quantized, final=final, codebook_size=2, traffic=np.ones(2), alarm=ALARM)

    assert report["identity"]["before"]["collision_rate"] == 0.5
    assert report["identity"]["after"]["collision_rate"] == 0


def test_exceedance_is_the_share_of_pairs() -> None:
    """Against counting every pair, ties as one half; equal samples are 1/2."""
    fitted, new = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 6.0, 0.0])
    pairs = [(float(a > b) + 0.5 * float(a == b)) for a in new for b in fitted]
    area, (low, high) = exceedance(fitted, new)

    assert area == pytest.approx(np.mean(pairs))
    assert low < area < high
    assert exceedance(fitted, fitted)[0] == 0.5


def test_the_interval_covers_its_truth() -> None:
    """Two normal samples a standard deviation apart: P(new > fitted) is .760; 95 % of 300 intervals hold it, about."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = exceedance(random.normal(size=80), random.normal(1.0, size=40))[1]
        held += low <= 0.7602 <= high

    assert 275 <= held <= 297


def test_the_alarm_needs_size_number_and_certainty() -> None:
    """Twice the error on 100 items raises it; on 10 items, or at 1.1 times the error, it does not."""
    fitted = errors(0.1, 1000)

    assert span_alarm(fitted, errors(0.2, 100, 1), ALARM)["raised"]
    assert "no longer spans" in span_alarm(fitted, errors(0.2, 100, 1), ALARM)["sentence"]
    assert not span_alarm(fitted, errors(0.2, 10, 1), ALARM)["raised"]
    assert not span_alarm(fitted, errors(0.11, 100, 1), ALARM)["raised"]
    assert not span_alarm(fitted, None, ALARM)["raised"]


def test_one_outlier_is_no_alarm() -> None:
    """A single item far away lifts the mean; most new items fit, so chance is not ruled out and nothing is raised."""
    new = errors(0.1, 30, 2)
    new[0] = 9.0

    assert new.mean() > 1.5 * 0.1
    assert not span_alarm(errors(0.1, 1000), new, ALARM)["raised"]


def test_residuals_lie_on_one_axis() -> None:
    """Histograms of fitted and new items count all of them over the same edges."""
    figures = residual_figures(errors(0.1, 500), errors(0.3, 50, 1))

    assert figures is not None
    assert sum(figures["fitted"]["histogram"]) == 500
    assert sum(figures["new"]["histogram"]) == 50
    assert len(figures["edges"]) == len(figures["new"]["histogram"]) + 1
    assert figures["ratio"] == pytest.approx(figures["new"]["mean"] / figures["fitted"]["mean"])
    assert residual_figures(None, None) is None


def test_an_item_without_a_vector_hides_no_alarm() -> None:
    """A zero vector has no relative error, only a huge quotient; such a one counts as 1 and the alarm stays."""
    fitted, new = np.append(errors(0.1, 1000), np.float32(1e11)), errors(0.3, 100, 1)
    figures = residual_figures(fitted, new)

    assert span_alarm(fitted, new, ALARM)["raised"]
    assert figures is not None
    assert figures["edges"][-1] <= 1
    assert figures["fitted"]["mean"] == pytest.approx((np.minimum(errors(0.1, 1000), 1).sum() + 1) / 1001, rel=1e-4)


def test_medians_and_quantiles_worked_by_hand() -> None:
    """Fitted .1, .2, .3 and new .4, .6: medians .2 and .5, means .2 and .5, ratio 2.5, every new one above."""
    figures = residual_figures(np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.6]))

    assert figures is not None
    assert (figures["fitted"]["median"], figures["new"]["median"]) == pytest.approx((0.2, 0.5))
    assert figures["ratio"] == pytest.approx(2.5)
    assert figures["auc"] == 1


def test_slots_are_compared_with_chance() -> None:
    """Copied slots share everything and chance only little; levels are not slots, so they have neither figure."""
    codes = np.repeat(np.random.default_rng(0).integers(0, 8, (500, 1)), 2, axis=1)
    given = {"quantized": codes, "final": codes, "codebook_size": 8, "traffic": np.ones(500), "alarm": ALARM}
    slots, levels = health_report(**given, slots=True), health_report(**given)

    assert slots["mutual_information"] == [[1, pytest.approx(1)], [pytest.approx(1), 1]]
    assert slots["mutual_information_by_chance"] < 0.1
    assert levels["mutual_information"] is levels["mutual_information_by_chance"] is None


def test_expert_load_and_stability_are_in_the_report() -> None:
    """Loads 3 and 1 have a largest share of .75; of two published items one kept both codes, a third one is new."""
    final = np.array([[0, 0], [1, 1], [2, 2]])
    report = health_report(
        quantized=final, final=final, codebook_size=3, traffic=np.array([1, 3, 4]), alarm=ALARM,
        previous=np.array([[0, 0], [1, 0]]), expert_load=np.array([3.0, 1.0]),
    )  # fmt: skip

    assert report["expert_load"]["largest_share"] == 0.75
    assert report["prefix_stability"] == {"items": [1.0, 0.5], "traffic": [1.0, 0.25]}


def test_a_coarse_codebook_can_raise_the_alarm_too() -> None:
    """Fitted errors near .7 leave no room for 1.5 times as much: half way to what is possible is enough."""
    fitted = np.random.default_rng(0).uniform(0.6, 0.8, 3000)

    assert span_alarm(fitted, np.ones(500), ALARM)["raised"]
    assert not span_alarm(fitted, fitted[:500], ALARM)["raised"]
