"""A plan that contradicts itself is refused with what is wrong."""

import pytest
from pydantic import ValidationError

from sidrec.experiment.plan import Cells, Metric
from tests.experiment_world import plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": {"control": 0.5, "treatment": 0.4}}, "sum to 1"),
        ({"shares": {"control": 1.0, "treatment": 0.0}}, "above 0"),
        ({"treatment": "control"}, "control and treatment are two arms"),
        ({"treatment": "challenger"}, "arms without a share: challenger"),
        ({"cells": Cells(neither="control", codebook="treatment", model="control", both="treatment")}, "four arms"),
        ({"max_users": 100}, "below planned_users"),
        ({"alfa": 0.05}, "alfa"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, object], message: str) -> None:
    """Nothing is corrected silently."""
    with pytest.raises(ValidationError, match=message):
        plan(**changes)


def test_a_plan_cannot_be_changed() -> None:
    """Frozen before the first user means frozen."""
    with pytest.raises(ValidationError, match="frozen"):
        plan().alpha = 0.1


def test_a_metric_names_its_columns_once() -> None:
    """What must be there for the metric, without repeats."""
    metric = Metric(name="m", numerator="a", denominator="b", covariate="c", denominator_covariate="b")

    assert metric.columns == ("a", "b", "c")


def test_a_past_denominator_needs_a_past_numerator() -> None:
    """Half a covariate is a mistake."""
    with pytest.raises(ValidationError, match="needs a numerator's covariate"):
        Metric(name="m", numerator="a", denominator="b", denominator_covariate="c")
