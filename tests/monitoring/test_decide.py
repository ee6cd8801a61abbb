"""Planted faults are found and named; unchanged traffic is left alone."""

from datetime import date, timedelta

import polars as pl
import pytest

from monitoring import report
from monitoring.findings import ALL_ARMS, DriftVerdict
from monitoring.report import Sources
from sidrec import home
from sidrec.clock import day_start
from sidrec.recipe import Recipe
from tests.monitoring import fault_world
from tests.monitoring.drift_world import World
from tests.monitoring.fault_world import MONDAY, Fault, in_last_weeks


@pytest.fixture
def small(recipe: Recipe) -> Recipe:
    """The recipe with limits that a small world reaches."""
    limits = recipe.monitoring.model_copy(update={"min_events": 300, "min_requests": 50})
    return recipe.model_copy(update={"monitoring": limits})


def judged(
    world: World, recipe: Recipe, exposures: pl.DataFrame, *, shock: float = 0.0, week: date | None = None
) -> DriftVerdict:
    """Return the verdict of the newest week of this traffic."""
    fault_world.write(exposures, fault_world.purchases(shock=shock))
    others = (fault_world.second_bundle(world),)
    sources = Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle, others)
    built = report.build(sources, recipe, week=week)
    assert built is not None
    return built.verdict


def moved(verdict: DriftVerdict) -> list[str]:
    return [finding.key for finding in verdict.findings if finding.level in ("warn", "alarm")]


def test_unchanged_traffic_moves_nothing(world: World, small: Recipe) -> None:
    """Eight weeks of one distribution: no finding, no suspect, and both arms were looked at."""
    verdict = judged(world, small, fault_world.requests())

    assert (verdict.level, moved(verdict), verdict.suspects) == ("ok", [], ())
    assert {finding.arm for finding in verdict.findings} == {ALL_ARMS, "control", "treatment"}
    assert verdict.bundle_ids == fault_world.ARMS
    assert not verdict.labels_final


@pytest.mark.parametrize(
    ("fault", "arm", "cause", "telling"),
    [
        (fault_world.codes_collapse, "treatment", "codes_collapsed", "served/0/normalised_entropy"),
        (fault_world.columns_swapped, None, "swapped_columns", "feature_age_days"),
        (fault_world.features_stale, None, "stale_features", "feature_age"),
        (fault_world.histories_null, None, "null_histories", "null_history"),
        (fault_world.ties_broken, "control", "broken_tie_order", "broken_ties"),
    ],
)
def test_a_planted_fault_is_named(
    world: World, small: Recipe, fault: Fault, arm: str | None, cause: str, telling: str
) -> None:
    """Two weeks of it: the first suspect is the fault, in the arms that have it, by the metric that tells it."""
    exposures = fault_world.scores_tied(fault_world.requests())
    verdict = judged(world, small, in_last_weeks(fault, arm=arm)(exposures))

    hit = {arm} if arm else {"control", "treatment"}
    assert {suspect.cause for suspect in verdict.suspects} == {cause}
    assert {suspect.arm for suspect in verdict.suspects} == hit
    assert {f"{telling}@{one}" for one in hit} <= set(moved(verdict))
    assert {key.rpartition("@")[2] for key in moved(verdict)} == hit
    assert {suspect.since for suspect in verdict.suspects} == {MONDAY - timedelta(weeks=1)}
    if arm == "treatment":
        assert "control flat" in verdict.suspects[0].sentence


def test_swapped_columns_are_named_by_name(world: World, small: Recipe) -> None:
    """Whoever is paged reads which two."""
    verdict = judged(world, small, in_last_weeks(fault_world.columns_swapped)(fault_world.requests()))

    assert verdict.suspects[0].items == ("history_length", "feature_age_days")


def test_a_popularity_shock_is_named_with_its_items(world: World, small: Recipe) -> None:
    """A third of one week's purchases are of one known item: purchases need one window, and answers stay flat."""
    verdict = judged(world, small, fault_world.requests(), shock=0.3)

    assert [(suspect.cause, suspect.arm) for suspect in verdict.suspects] == [("popularity_shock", ALL_ARMS)]
    assert verdict.suspects[0].items[0] == "i3"


def test_one_week_of_a_fault_does_not_warn(world: World, small: Recipe) -> None:
    """It is over its limit once; two of three weeks are needed."""
    exposures = in_last_weeks(fault_world.features_stale, weeks=1)(fault_world.requests())
    verdict = judged(world, small, exposures)

    [finding] = [one for one in verdict.findings if one.key == "feature_age@control"]
    assert (finding.windows_over, finding.level, verdict.suspects) == (1, "ok", ())


def test_a_new_arm_is_held_beside_the_other(world: World, small: Recipe) -> None:
    """An arm without a past that collapsed from its first day is compared with the control's same week."""
    began = pl.col("event_time") >= day_start(MONDAY - timedelta(weeks=1))
    table = fault_world.requests().filter(began | (pl.col("arm") == "control"))
    verdict = judged(world, small, in_last_weeks(fault_world.codes_collapse, arm="treatment")(table))

    [suspect] = verdict.suspects
    assert (suspect.cause, suspect.arm) == ("codes_collapsed", "treatment")
    assert "arm control in the same window" in suspect.sentence
