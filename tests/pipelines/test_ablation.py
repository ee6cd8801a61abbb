"""A study's pipeline has a task a cell and one table after them, and runs under KFP's local runner."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from sidrec import files
from tests.sidrec.study.study_world import write_recipe, write_world


def study_file(folder: Path) -> Path:
    recipe = write_recipe(folder / "recipe.yaml", write_world(folder / "world"), epochs=1)
    values = {
        "name": "tiny",
        "recipe": str(recipe),
        "seeds": [0],
        "variants": {"s2gr": {}, "tiger": {"model": {"thinking": "none"}}},
        "compare": [["s2gr", "tiger"]],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def call(root: Path, *arguments: str, home: Path) -> None:
    command = [sys.executable, "-m", "pipelines.ablation", *arguments]
    env = {**os.environ, "PYTHONPATH": str(root), "SIDREC_HOME": str(home)}
    subprocess.run(command, check=True, cwd=root, env=env, capture_output=True)


def test_it_has_a_task_a_cell_and_a_table_after_all_of_them(tmp_path: Path, project_root: Path) -> None:
    target = tmp_path / "pipeline.yaml"
    call(project_root, str(study_file(tmp_path)), "--compile", str(target), home=tmp_path / "home")
    tasks = yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]
    cells = {name for name in tasks if name.startswith("study-cell")}

    # Two variants, two floors.
    assert len(cells) == 4
    assert set(tasks["study-table"]["dependentTasks"]) == cells


def test_on_a_cluster_each_cell_asks_for_a_gpu(tmp_path: Path, project_root: Path) -> None:
    """Cells fit models; the table of them, and the report of how the run ended, need none."""
    target = tmp_path / "pipeline.yaml"
    more = ("--compile", str(target), "--cluster", str(project_root / "infra" / "cluster.yaml"))
    call(project_root, str(study_file(tmp_path)), *more, home=tmp_path / "home")
    spec, _ = yaml.safe_load_all(target.read_text())
    executors = spec["deploymentSpec"]["executors"]
    accelerated = {name for name, e in executors.items() if "accelerator" in e["container"]["resources"]}

    assert accelerated == {name for name in executors if name.startswith("exec-study-cell")}
    assert len(accelerated) == 4
    assert {"exec-study-table", "exec-report-run"} <= set(executors)


def test_it_compiles_without_torch(tmp_path: Path, project_root: Path) -> None:
    """A cluster's client has kfp and the library's settings, not what cells are fitted with."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['scipy'] = None; "
        "from pipelines.ablation import main; main()"
    )
    target = tmp_path / "pipeline.yaml"
    command = [sys.executable, "-c", code, str(study_file(tmp_path)), "--compile", str(target)]
    subprocess.run(command, check=True, cwd=project_root, capture_output=True)

    assert target.is_file()


def test_it_runs_here(tmp_path: Path, project_root: Path) -> None:
    """The real local runner: every cell's file, its TensorBoard logs as an artefact, and the table of the study."""
    out = tmp_path / "out"
    call(project_root, str(study_file(tmp_path)), "--run", "--out", str(out), home=tmp_path / "home")

    assert set(files.read_json(out / "table.json")["variants"]) == {"s2gr", "tiger", "floor_popularity", "floor_markov"}
    assert list((out / "kfp").rglob("events.out.tfevents*"))
    [table] = [path for path in (out / "kfp").rglob("table") if path.is_file()]
    assert table.read_text().startswith("Study `tiny`")
