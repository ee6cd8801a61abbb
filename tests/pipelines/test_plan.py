"""A plan says what a run would do, by the code that decides it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.validate_events.run import SECTIONS, source_files
from pipelines.cluster import load_cluster
from pipelines.plan import plan
from pipelines.training import training
from sidrec.recipe import Recipe
from sidrec.steps import execute

ROOT = Path(__file__).parents[2]
OUTPUTS = ("events", "sales", "items_raw", "quarantine", "accounting", "data_docs")


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    values = yaml.safe_load((ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text())
    values["data"]["events"] = str(tmp_path / "raw.parquet")
    (tmp_path / "raw.parquet").write_bytes(b"events")
    return yaml.safe_dump(values)


def validated(recipe: str, folder: Path) -> None:
    """Finish the first step as a run would, with results that stand for the real ones."""

    def run(parsed: Recipe, inputs: Mapping[str, Path], into: Path) -> dict[str, Any]:
        for name in OUTPUTS:
            (into / name).write_text(name)
        return {}

    outputs = {name: folder / name for name in OUTPUTS}
    execute("validate_events", run, recipe=recipe, sections=SECTIONS, inputs=source_files(recipe), outputs=outputs)


def planned(recipe: str) -> dict[str, Any]:
    arguments = {"recipe": recipe, "champion": "", "broken": ""}
    return plan(training, arguments, load_cluster())


def by_step(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["step"]: step for step in said["steps"]}


def test_a_first_run_runs_everything(recipe: str, own_state: Path) -> None:
    """What waits for another step says for which of its files; nothing is written."""
    said = planned(recipe)
    steps = by_step(said)

    assert (said["run"], said["reused"], said["gpus"]) == (13, 0, 1)
    assert steps["validate_events"]["why"] == "never done"
    assert steps["evaluate"]["why"] == "waits for baskets, bundle, items"
    assert {name for name, step in steps.items() if step["gpus"]} == {"train_model", "align_model"}
    assert not (own_state / "steps").exists()


def test_a_finished_step_is_reused_and_the_next_one_knows_its_key(recipe: str, tmp_path: Path) -> None:
    """The plan agrees with `execute` on what is done already."""
    validated(recipe, tmp_path / "out")
    steps = by_step(planned(recipe))

    assert (steps["validate_events"]["does"], steps["validate_events"]["cost"]) == ("reuse", None)
    assert steps["build_sequences"]["why"] == "never done"


def test_why_a_step_runs_again_is_named(recipe: str, tmp_path: Path) -> None:
    """New data, or another value in a section that the step reads; a section that it does not read changes nothing."""
    validated(recipe, tmp_path / "out")
    values = yaml.safe_load(recipe)
    other = by_step(planned(yaml.safe_dump({**values, "gate_days": values["gate_days"] + 1})))
    same = by_step(planned(yaml.safe_dump({**values, "seed": 7})))
    (tmp_path / "raw.parquet").write_bytes(b"more events")
    newer = by_step(planned(recipe))

    assert other["validate_events"]["why"] == "changed since it was last done: recipe's gate_days"
    assert same["validate_events"]["does"] == "reuse"
    assert newer["validate_events"]["why"] == "changed since it was last done: events_file"


def test_cost_is_size_times_the_last_time(recipe: str, tmp_path: Path) -> None:
    """A step that would run again costs what it took last, at the cluster's prices; others are named as unknown."""
    validated(recipe, tmp_path / "out")
    (tmp_path / "raw.parquet").write_bytes(b"more events")
    [done] = (tmp_path / "home").glob("steps/validate_events/*/done.json")
    done.write_text(done.read_text().replace('"seconds": 0', '"seconds": 3600.0, "was": 0'))
    said = planned(recipe)

    # 2 cores at .04 and 16 GiB at .005 for an hour.
    assert (said["cost"], said["currency"]) == (pytest.approx(0.16, abs=1e-3), "USD")
    assert "validate_events" not in said["unknown"]
    assert "train_model" in said["unknown"]
