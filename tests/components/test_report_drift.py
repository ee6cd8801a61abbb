"""The drift report as a pipeline step, alone and through KFP's local runner."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from components.report_drift.run import SECTIONS, run, still_in_workspace
from monitoring import findings
from sidrec import files, home
from sidrec.recipe import load_recipe, parse_recipe
from sidrec.steps import execute
from tests.monitoring.conftest import world
from tests.monitoring.drift_world import World, at, bought, exposed, write_exposures, write_outcomes

__all__ = ["world"]

MONDAY = date(2010, 11, 1)


@pytest.fixture
def recipe_text(project_root: Path) -> str:
    """The default recipe with a limit that a small world reaches."""
    text = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[0]
    return text.replace("monitoring: {}", "monitoring: {min_events: 100}")


def week() -> None:
    """Write a week of 30 customers who buy what they always bought."""
    items = [f"i{number}" for number in range(16)]
    write_exposures([exposed(f"r{user}", f"u{user}", at(MONDAY, user), items[:4]) for user in range(30)])
    write_outcomes([bought(f"u{user}", item, at(MONDAY, user + 1)) for user in range(30) for item in items])


def step(recipe_text: str, world: World, target: Path) -> dict[str, object]:
    inputs = {
        "exposures": home.exposures_dir(),
        "outcomes": home.outcomes_dir(),
        "baskets": world.baskets,
        "bundle": world.bundle,
    }
    outputs = {"drift_report": target / "drift_report"}
    return execute(
        "report_drift",
        run,
        recipe=recipe_text,
        sections=SECTIONS,
        inputs=inputs,
        outputs=outputs,
        still_holds=still_in_workspace,
    )


def test_the_step_writes_a_report_and_says_its_verdict(recipe_text: str, world: World, tmp_path: Path) -> None:
    """Its output is the report's folder; its summary has the level and the number of requests."""
    week()

    summary = step(recipe_text, world, tmp_path / "run")

    assert (summary["level"], summary["rows"]) == ("ok", 30)
    assert files.read_json(tmp_path / "run" / "drift_report" / "verdict.json")["sentence"] == summary["sentence"]


def test_another_arms_bundle_has_its_codes_counted_too(recipe_text: str, world: World, tmp_path: Path) -> None:
    """Where its folder is given; without, the arm has no figures of its codes."""
    other = tmp_path / "other"
    shutil.copytree(world.bundle, other)
    (other / "manifest.json").write_text('{"bundle_id": "b-ffffffffffff"}')
    items = [f"i{number}" for number in range(4)]
    arm = {"arm": "treatment", "bundle_id": "b-ffffffffffff"}
    write_exposures([exposed(f"t{user}", f"v{user}", at(MONDAY, user), items, **arm) for user in range(30)])
    week()
    logs = {"exposures": home.exposures_dir(), "outcomes": home.outcomes_dir()}
    own = logs | {"baskets": world.baskets, "bundle": world.bundle}
    named = {}
    for number, inputs in enumerate((own, own | {"other_bundle_0": other})):
        run(parse_recipe(recipe_text), inputs, tmp_path / str(number))
        found = findings.read(tmp_path / str(number) / "drift_report").findings
        named[number] = {one.name for one in found if one.arm == "treatment" and one.name.startswith("served/")}

    assert (bool(named[0]), bool(named[1])) == (False, True)


def test_the_same_traffic_is_reported_once_while_its_run_is_in_the_workspace(
    recipe_text: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unchanged log reuses the step; a workspace that lost the run makes the step add it again."""
    week()
    step(recipe_text, world, tmp_path / "run1")
    step(recipe_text, world, tmp_path / "run2")
    reused = capsys.readouterr().out
    shutil.rmtree(home.monitoring_dir() / "workspace")
    step(recipe_text, world, tmp_path / "run3")

    assert "reused" in reused
    assert list((home.monitoring_dir() / "workspace").glob("*/snapshots/*.json"))


def test_no_traffic_is_a_skip_with_its_reason(recipe_text: str, world: World, tmp_path: Path) -> None:
    """A schedule that starts before the first request does not fail."""
    summary = step(recipe_text, world, tmp_path / "run")

    assert "no exposures" in str(summary["skipped"])
