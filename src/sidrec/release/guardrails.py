"""When an arm hurts: bounds of what it does to users, beside the champion's at the same time.

A guardrail speaks when the bound, not the mean, is over its limit (one-sided, p < .0005), so that it may be asked every
minute: an arm as good as the champion is the whole limit away from it.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from sidrec.release.arm_health import ArmHealth
from sidrec.release.policy import Guardrails

_Z: Final = 3.29
_FEWEST_EXPECTED: Final = 25
"""Users that an arm should have had before their absence means anything."""


class Breach(NamedTuple):
    """One guardrail that an arm breaks."""

    guardrail: str
    observed: float
    limit: float
    sentence: str


def breaches(arm: ArmHealth, champion: ArmHealth, rules: Guardrails, *, share: float) -> Iterator[Breach]:
    """Yield the guardrails that an arm breaks.

    Args:
        share: of the two arms' users that are the arm's.
    """
    users = arm.users + champion.users
    if users * share >= _FEWEST_EXPECTED:
        least = share * (1 - rules.lost_users)
        high = _bound(arm.users / users, users, +1)
        if high < least:
            missing = 1 - arm.users / (share * users)
            yield Breach(
                "lost_users", missing, rules.lost_users,
                f"{missing:.1%} of its users have no answer in the log ({arm.users:,} of {share * users:,.0f} seen)",
            )  # fmt: skip
    if min(arm.answers, champion.answers) < rules.min_requests:
        return
    gap = champion.per_user * (1 - rules.lost_users) - arm.per_user
    noise = math.sqrt(arm.per_user_variance / arm.users + champion.per_user_variance / champion.users)
    if gap > _Z * noise:
        lost = 1 - arm.per_user / champion.per_user
        yield Breach(
            "lost_answers", lost, rules.lost_users,
            f"its users have {arm.per_user:.2f} answers each, the champion's {champion.per_user:.2f}",
        )  # fmt: skip
    for name, limit in (("cold", rules.cold), ("degraded", rules.degraded)):
        mine, theirs = getattr(arm, name), getattr(champion, name)
        if mine - theirs - _Z * _noise(mine, arm.answers, theirs, champion.answers) > limit:
            yield Breach(
                name, mine, theirs + limit, f"{mine:.1%} of its answers are {name}, {theirs:.1%} of the champion's"
            )
    if _bound(arm.slower, arm.answers, -1) > 0.01:
        yield Breach(
            "slow", arm.p99_ms, champion.p99_ms * rules.slow,
            f"its 99th percentile is {arm.p99_ms:.0f} ms, the champion's {champion.p99_ms:.0f} ms",
        )  # fmt: skip
    if min(arm.searches, champion.searches) >= rules.min_requests:
        noise = math.sqrt(arm.valid_variance / arm.searches + champion.valid_variance / champion.searches)
        if champion.valid_beams - arm.valid_beams - _Z * noise > rules.valid_beams:
            yield Breach(
                "valid_beams", arm.valid_beams, champion.valid_beams - rules.valid_beams,
                f"{arm.valid_beams:.1%} of its beams end at an item, {champion.valid_beams:.1%} of the champion's",
            )  # fmt: skip


def _bound(share: float, n: int, side: int) -> float:
    """Return Wilson's bound of a share on one side (+1 upper, -1 lower)."""
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return (share + _Z**2 / (2 * n) + side * spread) / (1 + _Z**2 / n)


def _noise(one: float, n: int, other: float, m: int) -> float:
    return math.sqrt(one * (1 - one) / n + other * (1 - other) / m)
