"""The monitoring pipeline compiles without the parts that it runs on, and runs locally."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from monitoring import heartbeat
from sidrec import files, home
from sidrec.recipe import load_recipe
from tests.monitoring.alert_world import listening
from tests.monitoring.conftest import world
from tests.monitoring.drift_world import World, at, bought, write_outcomes

__all__ = ["world"]

ABSENT = ("torch", "feast", "great_expectations", "bentoml", "evidently", "tritonclient", "polars", "pandas")
COMPILE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from kfp import compiler
from pipelines.monitoring import monitoring
compiler.Compiler().compile(monitoring, sys.argv[1])
"""
RUN = """
import os, sys
from pathlib import Path
from kfp import local
from pipelines.monitoring import monitoring
root, recipe, *paths = sys.argv[1:]
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
monitoring(recipe=Path(recipe).read_text(), **dict(zip(("exposures", "outcomes", "baskets", "bundle"), paths)))
"""


def test_compiles_without_torch_or_evidently(tmp_path: Path, project_root: Path) -> None:
    """Its steps compile where only kfp is installed, in their order."""
    target = tmp_path / "monitoring.yaml"
    subprocess.run([sys.executable, "-c", COMPILE, str(target)], check=True, cwd=project_root, capture_output=True)

    tasks = yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]

    assert {name: task.get("dependentTasks", []) for name, task in tasks.items()} == {
        "report-drift": [],
        "alert-drift": ["report-drift"],
        "prune-monitoring": ["alert-drift"],
    }


@pytest.mark.slow
def test_runs_under_the_local_runner(
    tmp_path: Path, project_root: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pipeline object, in KFP's subprocesses: a week of unseen items is reported, told once by two runs, and
    both leave the stamp of a success; the ledger and the registry are untouched."""
    write_outcomes(
        [bought(f"u{user}", f"new{item}", at(date(2010, 11, 1), user)) for user in range(9) for item in range(16)]
    )
    recipe = tmp_path / "recipe.yaml"
    text = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[0]
    recipe.write_text(text.replace("monitoring: {}", "monitoring: {min_events: 100}"))
    paths = (home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        for run in ("first", "second"):
            call = [sys.executable, "-c", RUN, str(tmp_path / run), str(recipe), *map(str, paths)]
            path = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
            subprocess.run(call, check=True, cwd=project_root, env={**os.environ, "PYTHONPATH": path})
    [verdict] = (home.steps_dir() / "report_drift").glob("*/drift_report/verdict.json")

    assert files.read_json(verdict)["level"] == "alarm"
    assert len(heard.told) == len(set(heard.titles)) >= 1
    assert list(heartbeat.stamps()) == ["monitoring"]
    assert (home.monitoring_dir() / "reports" / "2010-11-01-fit" / "report.html").exists()
    assert not [path for path in (home.ledger_path(), home.registry_dir()) if path.exists()]
