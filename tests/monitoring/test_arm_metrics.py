"""Evidently shows an arm's figures beside its reference's, and what moved against its threshold."""

import json
from typing import Any

import polars as pl
import pytest
from evidently import DataDefinition, Dataset, Report

from monitoring import arm_metrics
from monitoring.findings import Finding
from monitoring.readings import Reading

NOW = {
    "control": {"served/0/perplexity": Reading(12.5, 90), "ndcg@10": Reading(0.04, 50), "cold_share": Reading(0.2, 90)}
}
BEFORE = {"control": {"served/0/perplexity": Reading(20.0, 400), "cold_share": Reading(0.1, 400)}}
MOVED = Finding(
    name="cold_share", area="decoder", arm="control", window="w", reference="r", value=0.2, reference_value=0.1,
    effect=0.1, unit="rise", n=90, reference_n=400, min_n=50, threshold=0.05, level="warn", sentence="s",
)  # fmt: skip
FLAT = MOVED.model_copy(update={"name": "history_length", "area": "features", "effect": 0.01, "threshold": 0.2})


@pytest.fixture(scope="module")
def snapshot() -> dict[str, Any]:
    """The run of both tables as Evidently saves it."""
    definition = DataDefinition(categorical_columns=["kind", "key"], numerical_columns=["count"])
    current, reference = (
        Dataset.from_pandas(table.to_pandas(), data_definition=definition)
        for table in (arm_metrics.rows(NOW, [MOVED, FLAT]), arm_metrics.rows(BEFORE))
    )
    run = Report(arm_metrics.metrics(NOW, [MOVED, FLAT])).run(current, reference)
    saved: dict[str, Any] = json.loads(run.dumps())
    return saved | {"shown": run.dict()}


def test_a_figure_has_its_value_and_that_of_its_reference(snapshot: dict[str, Any]) -> None:
    """A custom metric returns both where there is a reference; a figure that the reference lacks stands alone."""
    shown = {metric["metric_name"]: metric["value"] for metric in snapshot["shown"]["metrics"]}
    assert shown["CodeHealth(arm=control,traffic=served,level=0,statistic=perplexity)"] == 12.5
    assert shown["RankingQuality(arm=control,name=ndcg@10)"] == 0.04
    assert shown["AnswerFigure(arm=control,name=cold_share)"] == 0.2


def test_presets_test_each_effect_against_its_threshold(snapshot: dict[str, Any]) -> None:
    """What moved fails, what is flat passes; inputs and predictions are two presets."""
    tests = {test["name"]: str(test["status"]) for test in snapshot["shown"]["tests"]}
    moved, flat = (next(tests[name] for name in tests if one in name) for one in ("cold_share", "history_length"))

    assert ("FAIL" in moved.upper(), "SUCCESS" in flat.upper()) == (True, True)


def test_both_results_are_computed() -> None:
    """The calculation itself: a pair with a reference, one result without."""
    definition = DataDefinition(categorical_columns=["kind", "key"], numerical_columns=["count"])
    data = [Dataset.from_pandas(arm_metrics.rows(one).to_pandas(), data_definition=definition) for one in (NOW, BEFORE)]
    metric = arm_metrics.AnswerFigure(arm="control", name="cold_share", tests=[])
    calculation = metric.to_calculation()

    pair = calculation.calculate(None, *data)
    alone = calculation.calculate(None, data[0], None)

    assert [one.value for one in pair] == [0.2, 0.1]
    assert alone.value == 0.2


def test_figures_and_effects_are_rows_of_counts() -> None:
    """In millionths, under their arm."""
    rows = arm_metrics.rows(NOW, [MOVED])

    assert rows.filter(pl.col("kind") == "reading/ndcg@10").row(0) == ("reading/ndcg@10", "control", 40_000)
    assert rows.filter(pl.col("kind") == "effect/cold_share").row(0) == ("effect/cold_share", "control", 100_000)
