"""The sentence follows from the intervals, the guardrails and the days, and names what would change it."""

import pytest

from sidrec.experiment.arms import ArmMean
from sidrec.experiment.decision import Decision, decide
from sidrec.experiment.effect import Effect, effect_of_means
from sidrec.experiment.guardrails import GuardrailResult, non_inferior
from sidrec.experiment.plan import Guardrail, Metric, Plan
from sidrec.experiment.trust import TrustCheck
from tests.experiment_world import plan

PLAN = plan(minimum_effect=0.02, max_users=2_000_000, planned_users=1_000_000)
UP = Metric(name="purchases", numerator="purchases")


def seen(treatment: float, users: int = 1_000_000, metric: Metric = UP, control: float = 1.0) -> Effect:
    means = [ArmMean(mean, 1.0, 1.0, users // 2) for mean in (control, treatment)]
    return effect_of_means(means[0], means[1], metric, alpha=0.05, tuned_for=PLAN.planned_users)


def rail(treatment: float, users: int = 1_000_000) -> GuardrailResult:
    return non_inferior(Guardrail(metric=UP, margin=0.03), seen(treatment, users))


@pytest.mark.parametrize(
    ("primary", "rails", "days", "verdict", "words"),
    [
        (seen(1.05), [rail(1.0)], 14, "ship", "surely better and the guardrail passes"),
        (seen(1.05), [], 14, "ship", "surely better."),
        (seen(0.95, metric=UP.model_copy(update={"better": "down"})), [], 14, "ship", "surely better"),
        (seen(0.95), [], 14, "don't", "purchases -5.00% [-5.59%, -4.41%]; it is worse ("),
        (seen(1.008), [], 14, "don't", "surely below what is worth shipping"),
        (seen(1.05), [rail(0.95)], 14, "don't", "the harm is surely above 3.0%"),
        (seen(1.05), [rail(1.0), rail(0.99, 2000)], 14, "keep running", "neither shown nor ruled out"),
        (seen(1.05), [rail(1.0)], 3, "keep running", "3 of at least 7 days are over"),
        (seen(1.01, 20_000), [], 14, "keep running", "still holds both zero and 2.0%"),
        (seen(1.015, 2_000_000, control=0.2), [], 1, "keep running", "1 of at least 7 days"),
        (seen(1.05, 2_000_000), [rail(0.99, 2000)], 14, "don't", "the planned 2,000,000 users are reached; purchases"),
    ],
)
def test_verdict(primary: Effect, rails: list[GuardrailResult], days: float, verdict: str, words: str) -> None:
    """Each way to an answer."""
    decision = decide(PLAN, primary, rails, days=days)

    assert decision.verdict == verdict
    assert words in decision.sentence
    assert (decision.until is None) == (verdict != "keep running")


def test_the_maximum_ends_an_undecided_experiment() -> None:
    """A small plan that reached its last user without a winner does not ship."""
    small = plan(minimum_effect=0.02, planned_users=10_000, max_users=20_000)
    decision = decide(small, seen(1.01, 20_000), [], days=14)

    assert decision.verdict == "don't"
    assert "20,000 users are reached; purchases +1.00%" in decision.sentence


def test_until_is_a_number_at_which_the_answer_is_probable() -> None:
    """At `until` users a true gain of the least worth is shown, when it is measured as it is with power .8."""
    decision = decide(PLAN, seen(1.01, 20_000), [], days=2)
    assert decision.until is not None
    error = seen(1.02, decision.until).error
    lucky = seen(1.02 - 0.8416 * error, decision.until)

    assert lucky.always_valid[0] == pytest.approx(0.0, abs=1e-5)
    assert "more days at this pace" in decision.sentence


def test_past_that_number_it_is_the_one_at_which_the_answer_is_sure() -> None:
    """An interval of half that width cannot hold both zero and the least gain."""
    first = decide(PLAN, seen(1.01, 20_000), [], days=14).until
    assert first is not None
    second = decide(PLAN, seen(1.01, first + 10), [], days=14).until
    assert second is not None
    low, high = seen(1.01, second).always_valid

    assert second > first
    assert high - low == pytest.approx(0.02, rel=1e-4)


def test_few_days_wait_for_the_users_of_a_whole_week() -> None:
    """Three days brought 300,000 users; seven bring 700,000."""
    decision = decide(PLAN, seen(1.05, 300_000), [], days=3)

    assert decision.until == 700_000


@pytest.mark.parametrize(("name", "then"), [("sample_size", "once they are there"), ("sample_ratio", "start anew")])
def test_a_hidden_result_says_what_to_do(name: str, then: str) -> None:
    """Too few users mend themselves; a broken split does not."""
    decision = Decision.hidden([TrustCheck(name=name, light="red", observed=1.0, sentence="It is so.")])

    assert decision.verdict == "hidden"
    assert then in decision.sentence


def test_a_metric_without_a_relative_change_is_told_in_absolute_numbers() -> None:
    """A control near zero neither ships nor stops before the maximum."""
    decision = decide(PLAN, seen(0.0, 2_000, control=0.0), [], days=14)

    assert decision.verdict == "keep running"
    assert "absolute" in decision.sentence
    assert decision.until == PLAN.max_users


def test_plan_is_what_decides() -> None:
    """The same numbers under a plan with a smaller least gain keep running."""
    modest: Plan = plan(minimum_effect=0.005, max_users=9_000_000, planned_users=1_000_000)

    assert decide(modest, seen(1.002), [], days=14).verdict == "keep running"
