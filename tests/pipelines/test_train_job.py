"""A fit on several nodes is a job made from a plan, and leaves the step that a run then reuses."""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob as TrainJob

from components.train_model.run import SECTIONS, run
from pipelines.cluster import load_cluster
from pipelines.plan import outlooks_of
from pipelines.train_job import train_job
from pipelines.training import training
from sidrec import files
from sidrec.errors import CheckFailedError
from sidrec.steps import DONE, execute, planning
from tests.step_world import codebook, embed, prepare, smaller, write_inputs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("components.materialize_features.run.still_holds", lambda folder: True)
    values = yaml.safe_load((ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text())
    values["data"]["events"] = str(tmp_path / "raw.parquet")
    (tmp_path / "raw.parquet").write_bytes(b"events")
    return {"recipe": yaml.safe_dump(values), "champion": "", "broken": ""}


def finish_before_training(arguments: dict[str, str]) -> None:
    """Leave every step before the fit finished, with a line of text for each of its files."""
    while (waiting := outlooks_of(training, arguments))["train-model"].key is None:
        outlook = next(one for one in waiting.values() if one.key is not None and not one.reused)
        assert outlook.folder is not None
        function = getattr(import_module(f"components.{outlook.step}.component"), outlook.step).python_func
        names = [name for name in inspect.signature(function).parameters if name not in outlook.inputs]
        outlook.folder.mkdir(parents=True)
        for name in names:
            (outlook.folder / name).write_text(name)
        outputs = {name: files.sha256_tree(outlook.folder / name) for name in names}
        files.write_json_atomic(outlook.folder / DONE, {"inputs": {}, "outputs": outputs, "seconds": 1.0})


def test_a_job_names_what_the_steps_before_it_left(arguments: dict[str, str]) -> None:
    """Valid by the trainer's own models, a process a GPU on each node, inputs and key of exactly this fit."""
    finish_before_training(arguments)
    job = train_job(training, arguments, load_cluster(), name="s2gr_debug", nodes=2)
    trainer = job["spec"]["trainer"]
    outlook = outlooks_of(training, arguments)["train-model"]

    assert TrainJob.from_dict(job).to_dict() == job
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 1)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "1"
    assert job["metadata"]["annotations"]["sidrec.io/step-key"] == outlook.key
    assert all(Path(one.split("=", 2)[2]).exists() for one in trainer["args"])
    assert {one.split("=")[1] for one in trainer["args"]} == {"baskets", "codebook", "prepared", "training_set"}


def test_the_runtime_that_a_job_names_is_the_one_in_the_manifests(arguments: dict[str, str]) -> None:
    """A job without its runtime would never start."""
    finish_before_training(arguments)
    job = train_job(training, arguments, load_cluster(), name="x", nodes=1)
    runtime, _ = yaml.safe_load_all((ROOT / "infra/k8s/training/runtime.yaml").read_text())

    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["metadata"]["namespace"] == runtime["metadata"]["namespace"]


def test_a_job_before_its_inputs_is_refused(arguments: dict[str, str]) -> None:
    """The steps that are missing are named; no job waits on a GPU for a file that nobody writes."""
    with pytest.raises(CheckFailedError, match="waits for baskets"):
        train_job(training, arguments, load_cluster(), name="x", nodes=2)


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is finished by rank 0 alone: another one would write the same files at the same time."""
    recipe = (ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text()
    (tmp_path / "in").write_text("x")
    monkeypatch.setenv("RANK", "1")
    execute(
        "count",
        lambda parsed, inputs, folder: {"rank": 1},
        recipe=recipe,
        sections=["seed"],
        inputs={"in": tmp_path / "in"},
        outputs={"out": tmp_path / "out"},
    )

    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "home").rglob(DONE))


@pytest.mark.slow
def test_two_processes_leave_what_a_run_reuses(tmp_path: Path, own_state: Path) -> None:
    """Real torchrun, gloo, the entry point of the image: afterwards the pipeline's own step has nothing to do."""
    recipe = smaller(
        "s2gr_debug",
        {
            "codebook": {"codebook_size": 8, "code_dim": 4, "hidden_dims": [8], "num_clusters": 3},
            "training": {"epochs": 1},
            "gates": {"max_collision_rate": 1.0, "min_utilisation": 0.0},
        },
    )
    inputs: dict[str, Any] = write_inputs(recipe, tmp_path)
    before = [(embed, ("vectors", "embedder")), (codebook, ("codebook", "decision")), (prepare, ("prepared",))]
    for step, written in before:
        work = tmp_path / step.__module__
        work.mkdir()
        step(recipe, inputs, work)
        inputs |= {name: work / name for name in written}
    text = yaml.safe_dump(recipe.model_dump(mode="json"))
    given = {name: str(inputs[name]) for name in ("baskets", "codebook", "prepared", "training_set")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "components.train_model.ranks", *(f"--input={name}={path}" for name, path in given.items())]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "SIDREC_RECIPE": text}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    with planning() as seen:
        execute("train_model", run, recipe=text, sections=SECTIONS, inputs=given, outputs={})

    assert done.returncode == 0, done.stderr[-2000:]
    assert seen[0].reused
    assert seen[0].folder is not None
    assert (seen[0].folder / "model" / "weights.safetensors").exists()
