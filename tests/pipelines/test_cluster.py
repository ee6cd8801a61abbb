"""Compiled for a cluster, each step has what it needs and no more; how a run ended is said where nobody watches."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl, local

from components.report_run.run import run as report
from monitoring import heartbeat
from pipelines.cluster import load_cluster
from pipelines.compile import OUT, PIPELINES, compiled, main
from pipelines.placement import finishing
from pipelines.training import training
from sidrec import files, home
from sidrec.errors import UsageError

ROOT = Path(__file__).parents[2]
TRAINING_STEPS = {"exec-train-model", "exec-align-model"}


def parts(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a committed pipeline's specification and what it asks of Kubernetes, by executor."""
    spec, platform = yaml.load_all((OUT / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("name", ["training", "monitoring"])
def test_what_is_committed_is_what_compiles(name: str) -> None:
    """A change of a pipeline, a component or the settings shows in the compiled file's diff; `make lint` checks all."""
    text = (OUT / f"{name}.yaml").read_text()

    assert text == compiled(name, load_cluster()), "python -m pipelines.compile"


def test_only_training_steps_ask_for_a_gpu() -> None:
    """A GPU, its nodes and their taint are for the steps that fit a model; the others run in the image without CUDA."""
    spec, kubernetes = parts("training")
    executors = spec["deploymentSpec"]["executors"]
    accelerated = {n for n, e in executors.items() if "accelerator" in e["container"].get("resources", {})}
    on_gpu_nodes = {name for name, config in kubernetes.items() if "nodeSelector" in config or "tolerations" in config}
    in_train_image = {name for name, e in executors.items() if "/train-python@" in e["container"]["image"]}

    assert accelerated == on_gpu_nodes == in_train_image == TRAINING_STEPS
    assert executors["exec-train-model"]["container"]["resources"]["accelerator"]["resourceCount"] == "1"


@pytest.mark.parametrize("name", PIPELINES)
def test_every_step_is_bounded_and_runs_as_nobody(name: str) -> None:
    """CPU, memory, time, a user who is not root, an image by digest, the state that makes a run resumable."""
    spec, kubernetes = parts(name)
    executors = spec["deploymentSpec"]["executors"]
    for executor, found in executors.items():
        resources, config = found["container"]["resources"], kubernetes[executor]
        assert {"resourceCpuLimit", "resourceMemoryLimit"} <= set(resources), executor
        assert "@sha256:" in found["container"]["image"], executor
        assert config["securityContext"]["runAsNonRoot"], executor
        assert int(config["activeDeadlineSeconds"]) > 0, executor
        assert {mount["constant"] for mount in config["pvcMount"]} == {"sidrec-state", "sidrec-data"}, executor

    assert set(executors) == set(kubernetes)


def test_only_the_signer_has_the_signing_key() -> None:
    """A step that runs a recipe's code cannot sign a verdict on what it made."""
    _, kubernetes = parts("training")
    secrets = {
        name: {volume["secretName"] for volume in config["secretAsVolume"]}
        for name, config in kubernetes.items()
        if "secretAsVolume" in config
    }

    assert secrets == {"exec-sign-verdict": {"sidrec-signing-key"}, "exec-register": {"sidrec-verify-key"}}


def tasks_of(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        name: task
        for component in [spec["root"], *spec["components"].values()]
        for name, task in component.get("dag", {}).get("tasks", {}).items()
    }


def test_kfps_cache_is_off_and_gates_are_not_retried() -> None:
    """What is done already is a matter of the steps' own keys; a gate that said no says no again."""
    tasks = tasks_of(parts("training")[0])
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    retried = {name for name, task in tasks.items() if "retryPolicy" in task}

    assert cached <= {"exit-handler-1"}
    assert {"train-model", "align-model", "embed-items"} <= retried
    assert retried.isdisjoint({"validate-events", "train-codebook", "evaluate", "sign-verdict", "register"})


def test_the_end_is_reported_after_everything() -> None:
    """The report runs whatever happened, and every other step is inside what it waits for."""
    spec, _ = parts("training")
    outside = spec["root"]["dag"]["tasks"]

    assert set(outside) == {"exit-handler-1", "report-run"}
    assert outside["report-run"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_a_run_on_this_machine_asks_nothing_of_kubernetes() -> None:
    """The pipeline that `sidrec run` runs has the same steps, without a cluster's settings or its report."""
    assert not training.platform_spec.platforms


@dsl.component(install_kfp_package=False)
def fails() -> None:
    """Stand for a step whose gate says no."""
    raise RuntimeError("the gate said no")


def test_a_failed_run_leaves_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_state: Path) -> None:
    """The real exit handler under KFP's local runner: a failure is told, with the recipe that it was about."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    recipe = (ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text()

    @dsl.pipeline(name="failing")
    def failing(recipe: str) -> None:
        with finishing(load_cluster(), "training", recipe):
            fails()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
        with pytest.raises(RuntimeError):
            failing(recipe=recipe)
    [path] = (own_state / "runs" / "cluster").glob("*.json")
    said = files.read_json(path)

    assert (said["ok"], said["state"], said["pipeline"], said["recipe"]) == (False, "FAILED", "training", "s2gr_debug")


def test_a_recipe_that_does_not_load_is_reported_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The one failure that no step could name has a document and a line all the same."""
    path = report(pipeline="training", recipe="{", name="a/b:c", state="FAILED", task="t", code=1, message="no")
    line = json.loads(capsys.readouterr().out)

    assert path == home.runs_dir() / "cluster" / "a-b-c.json"
    assert (line["event"], line["recipe"], bool(line["recipe_error"])) == ("run_ended", None, True)


def test_a_run_that_succeeded_leaves_its_stamp() -> None:
    """And one that failed none, so that the dead man's switch sees a cluster's runs as it does a laptop's."""
    ended: dict[str, Any] = {"recipe": "{", "task": "t", "code": 0, "message": None}
    report(pipeline="training", name="a", state="FAILED", **ended)
    failed = heartbeat.stamps()
    report(pipeline="training", name="b", state="SUCCEEDED", **ended)

    assert failed == {}
    assert set(heartbeat.stamps()) == {"training"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": {"evaluate": {"cpu": 1, "memory_gib": 1, "timeout_s": 1, "gpus": 1}}}, "image `train`"),
        ({"pricess": {}}, "pricess"),
        ({"user": 0}, "user"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A GPU for a step that cannot use one, a misspelt key and the root user name themselves."""
    values = yaml.safe_load((ROOT / "infra" / "cluster.yaml").read_text())
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({**values, **change}))

    with pytest.raises(UsageError, match=said):
        load_cluster(path)


def test_check_says_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CI's form of the command writes nothing and fails."""
    monkeypatch.setattr("pipelines.compile.compiled", lambda name, cluster: name)

    assert main(["--check", "--out", str(tmp_path)]) == 1
    assert "training.yaml: is not what the pipeline compiles to" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
