"""Simulated users with a known effect, for the tests of what reads experiments."""

from typing import Any

import numpy as np
import polars as pl

from sidrec.experiment.plan import Guardrail, Metric, Plan

PURCHASES = Metric(name="purchases", numerator="purchases", covariate="past")
RATE = Metric(name="purchases per request", numerator="purchases", denominator="requests")
REQUESTS = Metric(name="requests", numerator="requests")


def simulated_users(
    n: int, *, lift: float = 0.0, seed: int = 0, shares: dict[str, float] | None = None, **lifts: float
) -> pl.DataFrame:
    """Users whose purchases follow a rate of their own, which the treatment multiplies by 1 + `lift`.

    Args:
        shares: of the arms; control and treatment by halves unless given.
        lifts: of single arms, in place of `lift` for the arm `treatment`.
    """
    generator = np.random.default_rng(seed)
    shares = shares or {"control": 0.5, "treatment": 0.5}
    arms = np.array(list(shares))[generator.choice(len(shares), size=n, p=list(shares.values()))]
    lift_of = {"treatment": lift, **lifts}
    rate = generator.gamma(1.5, 0.13, n)
    requests = 1 + generator.poisson(4, n)
    served = rate * np.array([1 + lift_of.get(arm, 0.0) for arm in arms])
    return pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(n)],
            "arm": arms,
            "arms": np.ones(n, dtype=np.int64),
            "misplaced": np.zeros(n, dtype=np.int64),
            "foreign": np.zeros(n, dtype=np.int64),
            "requests": requests,
            "latency_ms": requests * generator.normal(30, 3, n),
            "purchases": generator.poisson(served * requests),
            "past": generator.poisson(rate * 20),
            "new_user": generator.random(n) < 0.3,
        }
    )


def plan(**changes: Any) -> Plan:
    """A plan over the simulated users."""
    values: dict[str, Any] = {
        "experiment": "codes",
        "control": "control",
        "treatment": "treatment",
        "shares": {"control": 0.5, "treatment": 0.5},
        "primary": PURCHASES,
        "minimum_effect": 0.05,
        "guardrails": (Guardrail(metric=REQUESTS, margin=0.05),),
        "planned_users": 20_000,
        "max_users": 100_000,
    }
    return Plan(**{**values, **changes})
