"""One sentence for the release owner: ship, don't, or keep running until a number of users."""

from collections.abc import Sequence
from math import ceil
from statistics import NormalDist
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from sidrec.experiment.effect import Effect
from sidrec.experiment.guardrails import GuardrailResult
from sidrec.experiment.plan import Plan
from sidrec.experiment.sequence import users_until
from sidrec.experiment.size import POWER
from sidrec.experiment.trust import TrustCheck

Verdict = Literal["ship", "don't", "keep running", "hidden"]


class Decision(BaseModel):
    """What to do now, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    until: int | None = Field(description="Users of both arms at which to look again, where it keeps running.")
    sentence: str

    @classmethod
    def hidden(cls, red: Sequence[TrustCheck]) -> Self:
        """Return the decision where the traffic cannot be trusted."""
        why = " ".join(f"{check.name}: {check.sentence}" for check in red)
        small = all(check.name == "sample_size" for check in red)
        then = "It shows once they are there." if small else "Find the cause and start anew; more users do not mend it."
        return cls(verdict="hidden", until=None, sentence=f"The result is hidden. {why} {then}")


def decide(plan: Plan, primary: Effect, guardrails: Sequence[GuardrailResult], *, days: float) -> Decision:
    """Return the verdict; every interval it reads holds at every look, so it may be asked daily.

    Don't: a guardrail failed, the whole interval of the gain is below the least gain worth shipping, or the planned
    maximum is reached without a winner. Ship: the gain is surely above zero, all guardrails pass and the least number
    of days is over. Otherwise keep running.
    """
    failed = [one for one in guardrails if one.result == "fail"]
    if failed:
        return _dont(failed[0].sentence)
    gain = primary.gain
    if gain and gain[1] < plan.minimum_effect:
        reading = "it is worse" if gain[1] < 0 else "the gain is surely below what is worth shipping"
        return _dont(f"{_seen(primary)}; {reading} ({plan.minimum_effect:.1%}).")
    undecided = [one for one in guardrails if one.result == "inconclusive"]
    won = gain is not None and gain[0] > 0
    if won and not undecided and days >= plan.min_days:
        passed = "the guardrail passes" if len(guardrails) == 1 else f"all {len(guardrails)} guardrails pass"
        rails = f" and {passed}" if guardrails else ""
        return Decision(verdict="ship", until=None, sentence=f"Ship: {_seen(primary)}; it is surely better{rails}.")
    if primary.users >= plan.max_users and not (won and not undecided):
        why = undecided[0].sentence if won else f"{_seen(primary)} does not leave zero out."
        return _dont(f"the planned {plan.max_users:,} users are reached; {why}")
    return _keep_running(plan, primary, undecided, won=won, days=days)


def _keep_running(
    plan: Plan, primary: Effect, undecided: Sequence[GuardrailResult], *, won: bool, days: float
) -> Decision:
    wanted = [] if won else [_until_primary(plan, primary)]
    wanted += [_until_guardrail(plan, one) for one in undecided]
    by_days = ceil(primary.users * plan.min_days / days) if 0 < days < plan.min_days else primary.users
    until = max(min(max(wanted, default=0), plan.max_users), by_days)
    missing = []
    if not won:
        missing.append(f"{_seen(primary)}, which still holds both zero and {plan.minimum_effect:.1%}")
    missing += [one.sentence.rstrip(".") for one in undecided]
    if days < plan.min_days:
        missing.append(f"{days:.3g} of at least {plan.min_days} days are over")
    more = (until - primary.users) / primary.users * days if days > 0 else 0.0
    pace = f", about {more:.0f} more days at this pace" if more >= 1 else ""
    return Decision(
        verdict="keep running",
        until=until,
        sentence=f"Keep running until {until:,} users (now {primary.users:,}{pace}): {'; '.join(missing)}.",
    )


def _until_primary(plan: Plan, primary: Effect) -> int:
    """Return the users at which the least gain is probably found, or, past those, surely told from zero.

    An interval narrower than the least gain cannot hold both it and zero.
    """
    change = plan.minimum_effect * abs(primary.control)
    if change <= 0:
        return plan.max_users
    return _next(plan, primary, change, widths=((1.0, POWER), (0.5, 0.5)))


def _until_guardrail(plan: Plan, one: GuardrailResult) -> int:
    """Return the users at which a guardrail that nothing harms probably passes."""
    change = one.margin * abs(one.effect.control)
    return _next(plan, one.effect, change, widths=((1.0, POWER),)) if change > 0 else plan.max_users


def _next(plan: Plan, found: Effect, change: float, *, widths: Sequence[tuple[float, float]]) -> int:
    for share, power in widths:
        extra = NormalDist().inv_cdf(power)
        users = users_until(share * change, found.spread, tuned_for=plan.planned_users, alpha=plan.alpha, extra=extra)
        if users > found.users:
            return users
    return plan.max_users


def _seen(primary: Effect) -> str:
    if primary.relative is None or primary.relative_always_valid is None:
        low, high = primary.always_valid
        return f"{primary.metric} {primary.difference:+.4g} [{low:+.4g}, {high:+.4g}] absolute"
    low, high = primary.relative_always_valid
    return f"{primary.metric} {primary.relative:+.2%} [{low:+.2%}, {high:+.2%}]"


def _dont(why: str) -> Decision:
    return Decision(verdict="don't", until=None, sentence=f"Don't: {why}")
