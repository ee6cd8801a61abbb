"""Pipelines compile anywhere and stop before promotion."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# Platforms that a machine which only compiles and submits does not have.
ABSENT = ("torch", "feast", "great_expectations", "bentoml", "evidently", "tritonclient")
COMPILE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from kfp import compiler
from pipelines.local import PIPELINES
compiler.Compiler().compile(PIPELINES[sys.argv[1]], sys.argv[2])
"""
STEPS = {
    "validate-events",
    "build-sequences",
    "materialize-features",
    "embed-items",
    "train-codebook",
    "write-corpus",
    "train-model",
    "align-model",
    "package-bundle",
    "evaluate",
    "check-serving",
    "sign-verdict",
    "register",
}


@pytest.fixture(scope="module", params=["training", "codebook_refresh"])
def tasks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pipeline's tasks, compiled where only kfp is installed."""
    target = tmp_path_factory.mktemp("ir") / "pipeline.yaml"
    command = [sys.executable, "-c", COMPILE, request.param, str(target)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    compiled: dict[str, Any] = yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]
    return compiled


def test_compiles_without_torch_or_any_other_platform(tasks: dict[str, Any]) -> None:
    """The pipeline compiles to IR where only kfp is installed, and has every step of the design."""
    assert set(tasks) == STEPS


def test_nothing_follows_register(tasks: dict[str, Any]) -> None:
    """No task depends on `register`: a pipeline ends there, and a person promotes."""
    assert not [name for name, task in tasks.items() if "register" in task.get("dependentTasks", [])]


def test_register_waits_for_the_verdict(tasks: dict[str, Any]) -> None:
    """A bundle cannot be registered before its verdict is signed."""
    assert "sign-verdict" in tasks["register"]["dependentTasks"]


def test_only_a_refresh_carries_the_live_model(tmp_path: Path) -> None:
    """Training starts from scratch whatever is live; a refresh hands the live bundle to the model's step."""
    given = {}
    for name in ("training", "codebook_refresh"):
        target = tmp_path / f"{name}.yaml"
        subprocess.run([sys.executable, "-c", COMPILE, name, str(target)], check=True, cwd=ROOT, capture_output=True)
        task = yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]["train-model"]
        given[name] = task["inputs"]["parameters"]["champion"]

    assert given["training"] == {"runtimeValue": {"constant": ""}}
    assert given["codebook_refresh"] == {"componentInputParameter": "champion"}
