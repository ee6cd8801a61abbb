"""The monitoring pipeline compiles without the parts that it runs on, and runs locally."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import yaml

from sidrec import files, home
from sidrec.recipe import load_recipe
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
    """The one step compiles where only kfp is installed."""
    target = tmp_path / "monitoring.yaml"
    subprocess.run([sys.executable, "-c", COMPILE, str(target)], check=True, cwd=project_root, capture_output=True)

    assert set(yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]) == {"report-drift"}


def test_runs_under_the_local_runner(tmp_path: Path, project_root: Path, world: World) -> None:
    """The same pipeline object, in KFP's subprocess, leaves a verdict in the step's folder."""
    write_outcomes(
        [bought(f"u{user}", f"i{item}", at(date(2010, 11, 1), user)) for user in range(9) for item in range(16)]
    )
    recipe = tmp_path / "recipe.yaml"
    text = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[0]
    recipe.write_text(text.replace("monitoring: {}", "monitoring: {min_events: 100}"))
    paths = (home.exposures_dir(), home.outcomes_dir(), world.baskets, world.bundle)

    call = [sys.executable, "-c", RUN, str(tmp_path / "kfp"), str(recipe), *map(str, paths)]
    subprocess.run(call, check=True, cwd=project_root, env={**os.environ, "PYTHONPATH": str(project_root)})

    [verdict] = (home.steps_dir() / "report_drift").glob("*/drift_report/verdict.json")
    assert files.read_json(verdict)["level"] == "ok"
