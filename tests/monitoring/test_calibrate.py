"""Thresholds that unchanged traffic does not reach."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from monitoring import aggregate, calibrate, counting, resampling, thresholds
from monitoring.report import Sources
from monitoring.resampling import Customers
from monitoring.thresholds import Rule, Thresholds
from sidrec import home, outcome
from sidrec.errors import InconclusiveError, UsageError
from sidrec.recipe import Recipe
from tests.monitoring import fault_world
from tests.monitoring.drift_world import World

RULES = Thresholds(
    budget=0.05,
    rules={
        "a/*": Rule(unit="PSI", warn=0.2, alarm=0.3, min_n=1),
        "b": Rule(unit="rise", warn=0.1, min_n=1, needed=1, of=1),
    },
)


@pytest.fixture
def customers() -> Customers:
    """Every customer of eight weeks of two arms, those of the control."""
    table = fault_world.requests().filter(pl.col("arm") == "control")
    return resampling.requesting_customers(table, outcome.SCHEMA.to_frame().lazy(), None, watermark=0)


def test_all_customers_together_are_all_rows(customers: Customers) -> None:
    """Counts by customer add up to those of the rows."""
    table = fault_world.requests().filter(pl.col("arm") == "control")
    histograms, _ = counting.count_piece(table.with_columns(part=pl.lit(0, pl.Int32)), {})
    seen = customers.table(np.ones(len(customers.rows), dtype=np.int64))

    assert customers.rows.sum() == table.height
    for kind in ("history_length", "source", "feature_age_days"):
        assert aggregate.counts_of(seen, kind) == aggregate.counts_of(histograms, kind)


def test_a_window_and_its_reference_share_no_customer(customers: Customers) -> None:
    """Each key of one customer's own (here their number) is on one side only."""
    alone = Customers(["who"] * 400, [str(key) for key in range(400)], np.eye(400), np.ones(400, dtype=np.int64))  # type: ignore[arg-type]
    window, reference = resampling.draw_window(alone, 150, np.random.default_rng(0))

    assert not set(window["key"]) & set(reference["key"])
    assert (window["count"].sum(), reference["count"].sum()) == (150, 200)


def test_thresholds_are_raised_above_chance_and_never_lowered() -> None:
    """A quarter above the largest effect; the alarm goes along where the warning passes it."""
    found = calibrate.raised(RULES, [{"a/0": 0.1, "b": 0.01}, {"a/1": 0.4}])

    assert (found.rules["a/*"].warn, found.rules["a/*"].alarm, found.rules["b"].warn) == (0.5, 0.5, 0.1)


def test_successive_windows_warn_as_reports_do() -> None:
    """Two of three for one rule, one of one for the other."""
    assert calibrate.warned_in(RULES, [{"a/0"}, set(), {"a/0"}, set(), set(), {"a/0"}]) == 1
    assert calibrate.warned_in(RULES, [{"a/0"}, {"a/1"}, {"b"}]) == 1


@pytest.mark.parametrize(("hits", "of"), [(0, 200), (3, 200), (10, 100)])
def test_the_bound_is_binomial(hits: int, of: int) -> None:
    """At the bound, so few hits have a chance of one in a hundred."""
    assert binom.cdf(hits, of, calibrate.upper_bound(hits, of)) == pytest.approx(0.01)


def test_unchanged_traffic_stays_within_the_budget(world: World, recipe: Recipe) -> None:
    """Of 200 A/A windows that no threshold was set on, so few are over that their share is under 5 % for sure."""
    limits = recipe.monitoring.model_copy(update={"min_requests": 50})
    fault_world.write(fault_world.requests(), fault_world.purchases())
    sources = Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)
    small = recipe.model_copy(update={"monitoring": limits})

    found = calibrate.of_logs(
        sources, small, thresholds.load(), days=(date(2010, 10, 4), date(2010, 10, 31)), windows=200
    )

    assert found.calibration is not None
    assert found.calibration.over_bound <= found.budget == 0.05
    assert found.calibration.warned <= found.calibration.over
    assert found.calibration.requests == pytest.approx(fault_world.PER_WEEK / 2, rel=0.1)


def test_few_customers_decide_nothing(world: World, recipe: Recipe) -> None:
    """Windows of the same ten customers over and over say nothing about others."""
    few = fault_world.requests().filter(pl.col("user_id").is_in([f"u{number}" for number in range(0, 20, 2)]))
    fault_world.write(few, fault_world.purchases())
    sources = Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)

    with pytest.raises(InconclusiveError, match="requests of 10 customers"):
        calibrate.of_logs(sources, recipe, thresholds.load(), days=None, windows=20)


def test_nothing_logged_is_a_usage_error(world: World, recipe: Recipe) -> None:
    """It says what to do first."""
    sources = Sources(home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)

    with pytest.raises(UsageError, match="nothing in"):
        calibrate.of_logs(sources, recipe, thresholds.load(), days=None, windows=20)


def test_a_sample_keeps_whole_customers() -> None:
    """A customer's requests are all in it, or none."""
    table = fault_world.requests()
    kept = resampling.sampled(table, 2_000)
    left = table.join(kept.select("request_id"), on="request_id", how="anti")

    assert 1_000 < kept.height < 3_500
    assert not set(kept["user_id"]) & set(left["user_id"])
    assert resampling.sampled(table, 100_000).height == table.height


def test_written_thresholds_are_read_back(tmp_path: Path) -> None:
    """What calibration writes is what reports read, its own record included."""
    thresholds.save(RULES, tmp_path / "t.yaml")

    assert thresholds.load(tmp_path / "t.yaml") == RULES


def test_shipped_thresholds_know_every_metric_they_name() -> None:
    """Each rule is of a metric that reports compute; the first that matches counts."""
    shipped = thresholds.load(thresholds.SHIPPED)

    assert shipped.rule("served/2/utilisation") is shipped.rules["served/*/utilisation"]
    assert shipped.rule("search/order_entropy") is shipped.rules["search/*"]
    assert shipped.rule("no such metric") is None


def test_a_broken_file_is_a_usage_error(tmp_path: Path) -> None:
    """A rule that warns above its alarm is refused, by name."""
    path = tmp_path / "t.yaml"
    path.write_text("budget: 0.05\nrules: {a: {unit: PSI, warn: 0.5, alarm: 0.2, min_n: 1}}\n")

    with pytest.raises(UsageError, match="lies below warn"):
        thresholds.load(path)
