"""A Kubeflow TrainJob that fits a recipe's model on several nodes, made from what the steps before it have left.

What every job has in common is the runtime `sidrec-torch` (infra/k8s/training); a job says recipe, inputs and size.
"""

import re
from typing import Any

from pipelines.cluster import Cluster
from pipelines.plan import outlooks_of
from sidrec.errors import CheckFailedError

RUNTIME = "sidrec-torch"
STEP = "train-model"


def train_job(pipeline: Any, arguments: dict[str, str], cluster: Cluster, *, name: str, nodes: int) -> dict[str, Any]:
    """Return the job's manifest; its result is the finished step that a run of the pipeline then reuses.

    Args:
        arguments: the pipeline's parameters, as a run would get them; SIDREC_HOME is where pods have it too.
        nodes: each with the GPUs that the cluster's settings give the step, a process a GPU.

    Raises:
        CheckFailedError: a step before it is not done, or the fit itself is.
    """
    outlook = outlooks_of(pipeline, arguments)[STEP]
    if outlook.key is None:
        raise CheckFailedError(
            f"train_model {outlook.why}", next_step="run the pipeline up to there: sidrec plan --steps"
        )
    if outlook.reused:
        raise CheckFailedError("this fit is done already: a run reuses it", evidence=outlook.folder)
    size = cluster.size_of("train_model")
    processes = max(size.gpus, 1)
    resources = {"cpu": f"{size.cpu:g}", "memory": f"{size.memory_gib:g}Gi"}
    if size.gpus:
        resources[cluster.accelerator.resource] = str(size.gpus)
    inputs = [f"--input={name}={path}" for name, path in sorted(outlook.inputs.items())]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": re.sub(r"[^a-z0-9-]+", "-", f"{name}-{outlook.key[:10]}".lower()).strip("-")[:60],
            "namespace": "sidrec",
            "labels": {"app.kubernetes.io/part-of": "sidrec", "sidrec.io/step": STEP},
            # The whole key: two jobs of one key would write one folder.
            "annotations": {"sidrec.io/step-key": outlook.key},
        },
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": RUNTIME},
            "activeDeadlineSeconds": size.timeout_s,
            "trainer": {
                "image": cluster.image_of("train_model"),
                # Rank, world and address come from the trainer, in variables that torchrun reads.
                "command": ["torchrun", "--max-restarts=3", "-m", "components.train_model.ranks"],
                "args": inputs,
                "env": [{"name": "SIDREC_RECIPE", "value": arguments["recipe"]}],
                "numNodes": nodes,
                "numProcPerNode": processes,
                "resourcesPerNode": {"requests": resources, "limits": dict(resources)},
            },
        },
    }
