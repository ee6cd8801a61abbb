"""What a team asks of a promotion: one small YAML file, or the defaults of a laptop.

The file is the one that `SIDREC_RELEASE_POLICY` names, else `release.yaml` of the state folder, else there is none.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sidrec import home
from sidrec.settings import read_settings

VARIABLE = "SIDREC_RELEASE_POLICY"


class Guardrails(BaseModel):
    """How much worse than the champion an arm may be before it is stopped; bounds must show it, not means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_requests: int = Field(
        default=500, ge=50, description="Answers of the arm, and of the champion, before any is judged."
    )
    lost_users: float = Field(
        default=0.02, gt=0, lt=1, description="Share of the arm's users that may be missing: errors."
    )
    cold: float = Field(default=0.05, gt=0, lt=1, description="More of its answers may be cold, as a share.")
    degraded: float = Field(default=0.05, gt=0, lt=1, description="More of its answers may be degraded, as a share.")
    slow: float = Field(
        default=1.5, gt=1, description="Its 99th percentile of latency may be so many times the champion's."
    )
    valid_beams: float = Field(
        default=0.05, gt=0, lt=1, description="Fewer of its beams may end at an item, as a share."
    )


class Policy(BaseModel):
    """The rules of this installation's promotions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    two_person: bool = Field(
        default=False, description="A promotion, start, ramp or exploration counts once somebody else approved it."
    )
    pending_hours: float = Field(default=24.0, gt=0, description="How long a promotion waits for its approval.")
    canary_share: float = Field(default=0.05, gt=0, lt=0.5, description="Share of users that a canary answers.")
    canary_hours: float = Field(default=24.0, ge=0, description="How long a canary answers before it may be champion.")
    require_canary: bool = Field(default=False, description="Nothing becomes champion without having been canary.")
    judged_against_champion: bool = Field(
        default=False, description="The verdict must have compared with this champion."
    )
    churn_budget: float | None = Field(
        default=None, ge=0, le=1, description="None takes the limit of the verdict's own gate."
    )
    guardrails: Guardrails = Guardrails()

    def waits_until(self, now: datetime | None = None) -> datetime | None:
        """Return until when a move waits for somebody else's approval, None where one person is enough."""
        return (now or datetime.now(UTC)) + timedelta(hours=self.pending_hours) if self.two_person else None


def load_policy() -> Policy:
    """Return the policy of this installation.

    Raises:
        UsageError: the file that the environment names is absent, or a key is unknown or a value out of range.
    """
    named = os.environ.get(VARIABLE, "").strip()
    path = Path(named) if named else home.home() / "release.yaml"
    if not named and not path.exists():
        return Policy()
    return read_settings(path, Policy, "promotion policy")
