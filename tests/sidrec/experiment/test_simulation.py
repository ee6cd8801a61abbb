"""Simulated traffic has the effect that it is said to have, says that it is simulated, and repeats by its seed."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from sidrec import exposure, outcome
from sidrec.clock import day_start
from sidrec.experiment.effect import effect
from sidrec.experiment.simulation import PREFIX, SURFACE, Simulation, simulate, write
from sidrec.experiment.users import by_user, with_past
from tests.experiment_world import plan

PLAN = plan(guardrails=(), primary={"name": "hits", "numerator": "hits", "covariate": "past"})
BUNDLES = {"control": "b-1", "treatment": "b-2"}
START = day_start(date(2020, 1, 6))


def arm_of(user: str) -> str:
    return "treatment" if int(user.rsplit("-", 1)[1]) % 2 else "control"


def traffic(**changes: object) -> tuple[pl.DataFrame, pl.DataFrame]:
    return simulate(Simulation(**{"users": 300, **changes}), PLAN, arm_of=arm_of, bundles=BUNDLES)  # type: ignore[arg-type]


def users_of(exposures: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Return the users' table; a simulated purchase names its request, so no attribution is needed."""
    taken = outcomes.drop_nulls("request_id").lazy()
    times = {"window_s": 7 * 86_400, "until": START + 14 * 86_400}
    users = by_user(exposures.lazy(), taken, experiment="codes", bundles=BUNDLES, **times)
    return with_past(users, outcomes.lazy(), start=START, days=28, name="past")


@pytest.mark.parametrize("lift", [0.0, -0.3, 4.0])
def test_the_effect_is_what_it_is_said_to_be(lift: float) -> None:
    """Of 10,000 users: the effect on hits is within four standard errors of the truth; the past foretells some.

    At the highest lift too: no user's chance is cut off at 1.
    """
    users = users_of(*traffic(users=10_000, lift=lift))
    found = effect(users, PLAN.primary, control="control", treatment="treatment", alpha=0.05, tuned_for=10_000)

    assert users.height == 10_000
    assert abs(found.difference - lift * found.control) < 4 * found.error * (1 + abs(lift))
    assert found.variance_reduction > 0.01


def test_every_row_says_that_it_is_simulated() -> None:
    """Surface, users, requests, items and events all carry the word."""
    exposures, outcomes = traffic()

    assert set(exposures["surface"]) == {SURFACE}
    for column in ("request_id", "user_id"):
        assert exposures[column].str.starts_with(PREFIX).all()
    assert exposures["item_ids"].explode().str.starts_with(PREFIX).all()
    assert all(outcomes[column].str.starts_with(PREFIX).all() for column in ("event_id", "user_id", "item_id"))


def test_equal_seeds_give_equal_rows() -> None:
    """The same arguments repeat every row; another seed does not."""
    first, second, other = traffic(seed=4), traffic(seed=4), traffic(seed=5)

    assert first[0].equals(second[0])
    assert first[1].equals(second[1])
    assert not first[0].equals(other[0])


def test_what_is_bought_was_shown_and_the_past_is_past() -> None:
    """A purchase's item is on the list of the request it names; without a request it lies before the exposures."""
    exposures, outcomes = traffic()
    named = outcomes.drop_nulls("request_id").join(exposures, on="request_id")
    past = outcomes.filter(pl.col("request_id").is_null())

    assert named.height == outcomes["request_id"].drop_nulls().len() > 50
    assert named.select(pl.col("item_ids").list.contains(pl.col("item_id")).all()).item()
    assert past["event_time"].max() < START <= exposures["event_time"].min()


def test_the_logs_readers_read_what_is_written(tmp_path: Path) -> None:
    """Both folders read back as the real logs do, every row."""
    exposures, outcomes = traffic()
    write(exposures, outcomes, tmp_path)

    assert exposure.read(tmp_path / "exposures").sort("request_id").equals(exposures.sort("request_id"))
    assert outcome.read(tmp_path / "outcomes").sort("event_id").equals(outcomes.sort("event_id"))
