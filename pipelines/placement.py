"""Puts a pipeline's tasks where the cluster's settings say; without a cluster nothing is placed, and it runs here."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_context import Pipeline

from components.report_run.component import report_run
from pipelines.cluster import Cluster, Size


def step_of(task: Any) -> str:
    """Return the step that a task runs, by its component's name."""
    return str(task.component_spec.name).replace("-", "_")


@contextmanager
def finishing(cluster: Cluster | None, name: str, recipe: Any) -> Iterator[None]:
    """Say how a run on a cluster ended, whatever happened in the body; then place every task of the pipeline.

    A run on this machine is watched by `sidrec run`, which says so itself.
    """
    handler = nullcontext() if cluster is None else dsl.ExitHandler(report_run(pipeline=name, recipe=recipe))
    with handler:
        yield
    if cluster is not None:
        for task in Pipeline.get_default_pipeline().tasks.values():
            place(task, cluster)


def place(task: Any, cluster: Cluster) -> None:
    """Give a task its image, size, volumes, secrets and time limit, and a GPU where its step fits a model."""
    step = step_of(task)
    size = cluster.size_of(step)
    # A finished step is found by its own key (sidrec.steps), which sees data and code; KFP's cache sees neither.
    task.set_caching_options(False)
    task.set_container_image(cluster.image_of(step))
    _size(task, size)
    if size.gpus:
        _accelerate(task, size, cluster)
    for claim, path in cluster.volumes.items():
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/scratch")
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")  # noqa: S108 - the step's own
    _secrets(task, step, cluster)
    kubernetes.set_security_context(task, run_as_user=cluster.user, run_as_group=cluster.user, run_as_non_root=True)
    kubernetes.set_timeout(task, seconds=size.timeout_s)
    kubernetes.add_pod_label(task, label_key="app.kubernetes.io/part-of", label_value="sidrec")
    kubernetes.add_pod_label(task, label_key="sidrec.io/step", label_value=step.replace("_", "-"))


def _size(task: Any, size: Size) -> None:
    cpu, memory = f"{round(size.cpu * 1000)}m", f"{size.memory_gib:g}Gi"
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
    if size.retries:
        task.set_retry(size.retries, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="1800s")


def _accelerate(task: Any, size: Size, cluster: Cluster) -> None:
    wanted = cluster.accelerator
    task.set_accelerator_type(wanted.resource).set_accelerator_limit(size.gpus)
    for key, value in wanted.node_labels.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    if wanted.taint is not None:
        kubernetes.add_toleration(task, key=wanted.taint, operator="Exists", effect="NoSchedule")


def _secrets(task: Any, step: str, cluster: Cluster) -> None:
    for name, files in cluster.secret_files.items():
        if step in files.steps:
            kubernetes.use_secret_as_volume(task, secret_name=name, mount_path=files.path)
            for variable, value in files.env.items():
                task.set_env_variable(variable, value)
    for name, variables in cluster.secret_env.items():
        if step in variables.steps:
            kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env=variables.env)
