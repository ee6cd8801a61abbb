"""A guardrail asks whether the harm is surely below its margin."""

import pytest

from sidrec.experiment.arms import ArmMean
from sidrec.experiment.effect import effect_of_means
from sidrec.experiment.guardrails import judge, non_inferior
from sidrec.experiment.plan import Guardrail, Metric
from tests.experiment_world import REQUESTS, plan, simulated_users

UP, DOWN = (Metric(name="m", numerator="m", better=better) for better in ("up", "down"))


@pytest.mark.parametrize(
    ("metric", "treatment", "users", "expected"),
    [
        (UP, 1.0, 1_000_000, "pass"),
        (UP, 0.985, 1_000_000, "pass"),
        (UP, 0.96, 1_000_000, "fail"),
        (UP, 1.0, 3_000, "inconclusive"),
        (UP, 0.975, 200_000, "inconclusive"),
        (UP, 1.3, 1_000_000, "pass"),
        (DOWN, 1.04, 1_000_000, "fail"),
        (DOWN, 0.9, 1_000_000, "pass"),
        (DOWN, 1.015, 1_000_000, "pass"),
    ],
)
def test_margin_of_three_percent(metric: Metric, treatment: float, users: int, expected: str) -> None:
    """Known means and variances: harm below, above, or too uncertain to place."""
    control, treated = (ArmMean(mean, 1.0, 1.0, users // 2) for mean in (1.0, treatment))
    found = effect_of_means(control, treated, metric, alpha=0.05, tuned_for=users)
    result = non_inferior(Guardrail(metric=metric, margin=0.03), found)

    assert result.result == expected


def test_a_control_near_zero_decides_nothing() -> None:
    """A share of a mean that may be zero is not judged, and the sentence says why."""
    zero = ArmMean(0.001, 1.0, 1.0, 1000)
    result = non_inferior(
        Guardrail(metric=UP, margin=0.03), effect_of_means(zero, zero, UP, alpha=0.05, tuned_for=1000)
    )

    assert result.result == "inconclusive"
    assert "not yet surely above zero" in result.sentence


def test_every_guardrail_of_the_plan_is_judged() -> None:
    """From users to results, in the plan's order."""
    rails = (
        Guardrail(metric=REQUESTS, margin=0.05),
        Guardrail(metric=UP.model_copy(update={"numerator": "past"}), margin=0.9),
    )
    results = judge(plan(guardrails=rails), simulated_users(8000, seed=1))

    assert [one.effect.metric for one in results] == ["requests", "m"]
    assert [one.result for one in results] == ["pass", "pass"]
