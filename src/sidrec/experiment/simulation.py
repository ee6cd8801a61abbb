"""SIMULATION: made-up traffic with an effect that is known, to test whatever reads experiments.

Nothing here says anything about a model or about users. Every exposure has the surface `simulation`, every id begins
with `simulated-`, and whoever shows a number computed from such rows says so.

Each user has a chance of their own to take one item from an answer, Beta-distributed over users. The treatment
multiplies it by 1 + lift, exactly, whoever the user is: the mean of `hits` over users has that relative effect. The
user's past follows the same chance, so CUPED has something to find. Arms are alike in all else.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sidrec import exposure, outcome
from sidrec.clock import DAY_S, day_start
from sidrec.experiment.plan import Plan

SURFACE = "simulation"
PREFIX = "simulated-"
# Of an answer to the purchase; no request is later than this before the end of its user's window.
_PURCHASE_S = 60
_K = 5
_SIDE = 16


class Simulation(BaseModel):
    """How many users come, how long, and what the treatment is made to do to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(ge=1, description="Users of all arms.")
    lift: float = Field(default=0.0, gt=-1, le=4, description="Relative effect on the treatment's hits per user.")
    lifts: dict[str, float] = Field(default={}, description="Effects of other arms by name; the control has none.")
    enter_days: int = Field(default=7, ge=1, description="Users come evenly over so many days.")
    requests: float = Field(default=4.0, ge=1, description="Mean requests of a user in their window, 1 + Poisson.")
    start: date = Field(default=date(2020, 1, 6), description="Day of the first exposure.")
    seed: int = 0


def simulate(
    simulation: Simulation, plan: Plan, *, arm_of: Callable[[str], str], bundles: Mapping[str, str], revision: int = 1
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return simulated exposures and outcomes, in the logs' own columns; equal arguments give equal rows.

    Args:
        arm_of: the arm of a user id, as the server would choose it.
        bundles: bundle id by arm.
    """
    draw = np.random.default_rng(simulation.seed)
    users = [f"{PREFIX}user-{number}" for number in range(simulation.users)]
    arms = [arm_of(user) for user in users]
    lift_of = {plan.treatment: simulation.lift, **simulation.lifts, plan.control: 0.0}
    lifts = np.array([lift_of.get(arm, 0.0) for arm in arms])
    # Scaled so that no chance exceeds 1 in any arm: cutting it off would make the effect smaller than it is said to be.
    chance = draw.beta(1.2, 6.0, simulation.users) / (1 + max(0.0, *lift_of.values()))
    start = day_start(simulation.start)
    entered = start + draw.integers(0, simulation.enter_days * DAY_S, simulation.users)
    requests = 1 + draw.poisson(simulation.requests - 1, simulation.users)
    user = np.repeat(np.arange(simulation.users), requests)
    first = np.r_[True, user[1:] != user[:-1]]
    waited = draw.integers(0, plan.window_days * DAY_S - _PURCHASE_S, len(user))
    times = entered[user] + np.where(first, 0, waited)
    shown = _shown(draw, len(user))
    exposures = _exposures(users, arms, bundles, user, times, shown, draw.gamma(16, 1.25, len(user)), plan, revision)
    took = draw.random(len(user)) < (chance * (1 + lifts))[user]
    rank = draw.integers(0, _K, len(user))
    before = np.repeat(np.arange(simulation.users), draw.poisson(chance * simulation.requests * 2))
    past = pl.DataFrame(
        {
            "user": before,
            "item": draw.integers(0, _SIDE**2, len(before)),
            "event_time": start - 1 - draw.integers(0, plan.past_days * DAY_S, len(before)),
            "request": np.full(len(before), -1),
        }
    )
    now = pl.DataFrame(
        {
            "user": user[took],
            "item": shown[np.arange(len(user)), rank][took],
            "event_time": times[took] + _PURCHASE_S,
            "request": np.flatnonzero(took),
        }
    )
    return exposures, _outcomes(pl.concat([past, now]))


def write(exposures: pl.DataFrame, outcomes: pl.DataFrame, folder: Path) -> None:
    """Write both logs below `folder`, in the layout that their readers expect."""
    for name, table in (("exposures", exposures), ("outcomes", outcomes)):
        first = datetime.fromtimestamp(int(table["event_time"].min() or 0), UTC)  # type: ignore[arg-type]
        day = folder / name / str(first.date())
        day.mkdir(parents=True, exist_ok=True)
        table.write_parquet(day / f"0-{SURFACE}-000000.parquet", compression="zstd")


def _shown(draw: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """Return the items of each answer: a few neighbours from a popular place of the catalogue on."""
    weights = 1 / np.arange(1, _SIDE**2 + 1)
    first = draw.choice(_SIDE**2, size=rows, p=weights / weights.sum())
    return (first[:, None] + np.arange(_K)) % _SIDE**2


def _exposures(
    users: list[str],
    arms: list[str],
    bundles: Mapping[str, str],
    user: NDArray[np.int64],
    times: NDArray[np.int64],
    shown: NDArray[np.int64],
    latency: NDArray[np.float64],
    plan: Plan,
    revision: int,
) -> pl.DataFrame:
    rows = len(user)
    people = pl.DataFrame({"user_id": users, "arm": arms}).with_columns(
        bundle_id=pl.col("arm").replace_strict(dict(bundles), return_dtype=pl.String)
    )
    codes = np.stack([shown // _SIDE, shown % _SIDE], axis=-1)
    same = {
        "schema_version": exposure.SCHEMA_VERSION,
        "revision": revision,
        "experiment": plan.experiment,
        "surface": SURFACE,
        "k": _K,
        "exclude_seen": False,
        "history_source": "none",
        "history_length": 0,
        "known_items": 0,
        "source": "model",
        "feature_age_s": None,
        "beam_width": _K,
        "valid_beams": _K,
        "group_size": 1,
        "ranks": None,
        "propensities": None,
    }
    table = people[user].with_columns(
        request_id=PREFIX + pl.int_range(rows).cast(pl.String),
        wall_time_ms=pl.Series(times * 1000),
        event_time=pl.Series(times),
        item_ids=(PREFIX + "item-" + pl.Series(shown.ravel()).cast(pl.String)).reshape((rows, _K)).arr.to_list(),
        semantic_ids=pl.Series(codes.ravel()).reshape((rows, _K, 2)),
        scores=pl.lit([-float(rank) for rank in range(_K)], dtype=exposure.SCHEMA["scores"]),
        latency_ms=pl.Series(latency),
        stats=pl.lit([], dtype=exposure.SCHEMA["stats"]),
        **{name: pl.lit(value) for name, value in same.items()},
    )
    return table.select(pl.col(name).cast(kind) for name, kind in exposure.SCHEMA.items()).sort(
        "event_time", "request_id"
    )


def _outcomes(rows: pl.DataFrame) -> pl.DataFrame:
    named = rows.with_row_index("row").select(
        schema_version=pl.lit(outcome.SCHEMA_VERSION),
        event_id=pl.format("{}event-{}", pl.lit(PREFIX), "row"),
        user_id=pl.format("{}user-{}", pl.lit(PREFIX), "user"),
        item_id=pl.format("{}item-{}", pl.lit(PREFIX), "item"),
        event_type=pl.lit("purchase"),
        event_time="event_time",
        request_id=pl.when(pl.col("request") >= 0).then(pl.format("{}{}", pl.lit(PREFIX), "request")),
    )
    return named.select(pl.col(name).cast(kind) for name, kind in outcome.SCHEMA.items()).sort("event_time", "event_id")
