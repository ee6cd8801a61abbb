"""Every fault of the traffic turns its own light red, and clean traffic turns none."""

import polars as pl
import pytest
from tea_tasting import SampleRatio

from sidrec.experiment.trust import (
    TrustCheck,
    exposure_loss,
    missing_outcomes,
    sample_ratio,
    trust_box,
)
from tests.experiment_world import plan, simulated_users

CLEAN = simulated_users(6000, seed=1)
PLAN = plan(planned_users=6000)


def counted(control: int, treatment: int) -> pl.DataFrame:
    return pl.DataFrame({"arm": ["control"] * control + ["treatment"] * treatment})


def lights(users: pl.DataFrame, lost: dict[str, float] | None = None) -> dict[str, str]:
    return {check.name: check.light for check in trust_box(PLAN, users, lost=lost)}


def test_clean_traffic_is_green_throughout() -> None:
    """No check cries wolf on users as they should be."""
    assert set(lights(CLEAN, {"control": 0.0, "treatment": 0.002}).values()) == {"green"}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("sample_ratio", CLEAN.filter((pl.col("arm") == "control") | (pl.int_range(pl.len()) % 8 > 0))),
        ("sample_ratio", CLEAN.with_columns(pl.col("arm").str.replace("control", "champion"))),
        (
            "sample_ratio",
            CLEAN.with_columns(arm=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("third")).otherwise("arm")),
        ),
        ("stickiness", CLEAN.with_columns(arms=pl.when(pl.int_range(pl.len()) == 7).then(2).otherwise(1))),
        ("arm_purity", CLEAN.with_columns(misplaced=pl.when(pl.int_range(pl.len()) == 7).then(1).otherwise(0))),
        ("bundle_purity", CLEAN.with_columns(foreign=pl.when(pl.int_range(pl.len()) == 7).then(1).otherwise(0))),
        ("missing_outcomes", CLEAN.with_columns(pl.when(pl.int_range(pl.len()) % 15 > 0).then("purchases"))),
        ("sample_size", CLEAN.head(900)),
        (
            "latency_parity",
            CLEAN.with_columns(pl.col("latency_ms") * pl.when(pl.col("arm") == "treatment").then(1.2).otherwise(1)),
        ),
    ],
)
def test_a_fault_turns_its_light_red_alone(name: str, broken: pl.DataFrame) -> None:
    """Each fault is named by one check; the others that can be asked stay green or unmeasured."""
    red = {check for check, light in lights(broken).items() if light == "red"}

    assert name in red
    assert red <= {name, "sample_size"}  # users in an unknown arm leave a planned arm empty


def test_what_is_not_in_the_table_is_unmeasured_and_said() -> None:
    """A table without the log's columns hides nothing and claims nothing."""
    bare = CLEAN.drop("arms", "misplaced", "foreign", "latency_ms")
    found = lights(bare)

    assert {name for name, light in found.items() if light == "unmeasured"} == {
        "stickiness",
        "arm_purity",
        "bundle_purity",
        "exposure_loss",
        "latency_parity",
    }


def test_the_p_value_is_the_binomial_s_and_tea_tasting_s() -> None:
    """Chi-square on two arms equals the peer's normal approximation without correction."""
    users = counted(5100, 4900)
    peer = SampleRatio(method="norm", correction=False).analyze(users, "control", "treatment", "arm")

    assert sample_ratio(PLAN, users).observed == pytest.approx(peer.pvalue)


def test_a_loss_in_one_arm_s_outcomes_is_red_though_few_are_missing() -> None:
    """Two percent are missing, all of them in one arm: the arms are no longer comparable."""
    one_sided = CLEAN.with_columns(
        pl.when((pl.col("arm") == "control") | (pl.int_range(pl.len()) % 25 > 0)).then("purchases")
    )
    check = missing_outcomes(PLAN, one_sided)

    assert check.observed == pytest.approx(0.02, abs=0.003)
    assert check.light == "red"


@pytest.mark.parametrize(("worst", "light"), [(0.009, "green"), (0.02, "red"), (-0.02, "red")])
def test_the_worst_arm_s_loss_decides(worst: float, light: str) -> None:
    """More rows than answers is as wrong as fewer."""
    check: TrustCheck = exposure_loss({"control": 0.0, "treatment": worst})

    assert check.light == light
    assert "treatment" in check.sentence
