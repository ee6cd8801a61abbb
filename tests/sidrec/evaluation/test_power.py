"""The outlook says before training whether the rows can decide."""

import numpy as np
import pytest

from sidrec.evaluation.bootstrap import paired_difference
from sidrec.evaluation.gates import champion_gate, floor_gate
from sidrec.evaluation.power import before_training, minimum_detectable_difference, outlook, rows_needed


def test_minimum_detectable_difference_is_two_point_eight_standard_errors() -> None:
    """1.96 + 0.84 standard errors: 95 % interval, 80 % power."""
    assert minimum_detectable_difference(1171, 0.10) == pytest.approx(2.8016 * 0.10 / np.sqrt(1171), rel=1e-4)


def test_rows_needed_inverts_it() -> None:
    """At the rows it names, the difference is detectable; at one row fewer it is not."""
    n = rows_needed(0.003, 0.1)

    assert minimum_detectable_difference(n, 0.1) <= 0.003 < minimum_detectable_difference(n - 1, 0.1)


def test_a_difference_of_that_size_is_found_four_times_in_five() -> None:
    """Simulated evaluations at the minimum detectable difference exclude zero in about 80 of 100."""
    generator = np.random.default_rng(0)
    n, sd = 150, 0.12
    shift = minimum_detectable_difference(n, sd)
    found = []
    for _ in range(300):
        reference = generator.uniform(0.2, 0.6, size=n)
        candidate = reference + generator.normal(shift, sd, size=n)
        found.append(paired_difference(candidate, reference, resamples=200, seed=0).interval[0] > 0)

    # 99.9 % binomial bounds of 300 draws at 0.8.
    assert 0.72 <= np.mean(found) <= 0.88


def test_too_few_rows_are_said_with_the_number_that_would_do() -> None:
    """Novel-only on Online Retail: 3 % of .06 is far below what 1,171 rows show."""
    result = outlook(n=1171, champion_mean=0.06, non_inferiority=0.03)

    assert not result.decidable
    assert f"{result.rows_needed:,} rows would do" in result.sentence
    assert "expect an inconclusive verdict" in result.sentence


def test_enough_rows_are_said_so() -> None:
    """All-items at .32 with near-equal models can be decided on 1,280 rows."""
    result = outlook(n=1280, champion_mean=0.32, non_inferiority=0.03, row_sd=0.07)

    assert result.decidable
    assert "enough to decide" in result.sentence


def test_no_rows_decide_nothing() -> None:
    """An empty window is never decidable, and its numbers stay finite."""
    result = outlook(n=0, champion_mean=0.3, non_inferiority=0.03)

    assert not result.decidable
    assert np.isfinite(result.minimum_detectable)


METRICS = {"all": {"ndcg@10": 0.32}, "novel": {"ndcg@10": 0.06}}


def test_a_first_champion_gives_the_outlook_of_its_novel_rows() -> None:
    """Its only quality gate is the floor's, on novel rows, at the typical spread."""
    rows = np.full(1171, 0.06)
    gate = floor_gate(paired_difference(rows, rows / 2, resamples=100, seed=0), metric="m", floor="ease")
    (result,) = before_training([gate], METRICS, 0.03)

    assert result == outlook(n=1171, champion_mean=0.06, non_inferiority=0.03, metric="NDCG@10 novel")


def test_a_later_champion_brings_its_measured_spread() -> None:
    """The spread read back from the relative interval is that of the per-row differences."""
    generator = np.random.default_rng(1)
    reference = generator.uniform(0.1, 0.5, size=1280)
    difference = paired_difference(reference + generator.normal(0, 0.08, 1280), reference, resamples=2000, seed=0)
    gate = champion_gate(difference, metric="m", name="non_inferior_all", non_inferiority=0.03)
    (result,) = before_training([gate], {"all": {"ndcg@10": difference.reference}}, 0.03)

    assert result.n == 1280
    assert result.row_sd == pytest.approx(difference.row_sd, rel=0.1)


def test_gates_of_codebook_and_serving_are_not_asked() -> None:
    """Only the quality gates count rows."""
    rows = np.full(10, 0.5)
    gate = floor_gate(paired_difference(rows, rows / 2, resamples=100, seed=0), metric="m", floor="ease")

    assert before_training([gate.model_copy(update={"gate": "serving"})], METRICS, 0.03) == []
