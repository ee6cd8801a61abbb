"""What a run would do: which steps have their result already, why the others run, on what, and for how much.

Each component's own function is called while `sidrec.steps` only looks, so a plan and a run decide by the same code.
"""

import inspect
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf import json_format

from pipelines.cluster import Cluster
from sidrec.steps import Outlook, planning

# No file lies here: a path under it stands for what a step has yet to write.
_PENDING = "/nowhere/yet"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a run to come; `cost` is None where nothing runs for money, or nobody knows for how long."""

    step: str
    does: str
    why: str
    image: str
    cpu: float
    memory_gib: float
    gpus: int
    last_s: float | None
    cost: float | None


def plan(pipeline: Any, arguments: dict[str, str], cluster: Cluster) -> dict[str, Any]:
    """Return the steps of a pipeline in order, with totals.

    Args:
        arguments: the pipeline's parameters, as a run would get them.
    """
    steps = [_planned(outlook, cluster) for outlook in outlooks_of(pipeline, arguments).values()]
    unknown = [step.step for step in steps if step.does == "run" and step.last_s is None]
    return {
        "steps": [asdict(step) for step in steps],
        "run": sum(step.does == "run" for step in steps),
        "reused": sum(step.does == "reuse" for step in steps),
        "gpus": max((step.gpus for step in steps if step.does == "run"), default=0),
        "seconds": sum(step.last_s or 0.0 for step in steps if step.does == "run"),
        "cost": round(sum(step.cost or 0.0 for step in steps), 4),
        "currency": cluster.prices.currency,
        "unknown": unknown,
    }


def outlooks_of(pipeline: Any, arguments: dict[str, str]) -> dict[str, Outlook]:
    """Return what each task of a pipeline would do, by its name, in order."""
    dag = json_format.MessageToDict(pipeline.pipeline_spec)["root"]["dag"]["tasks"]
    outlooks: dict[str, Outlook] = {}
    for name in _in_order(dag):
        outlooks[name] = _look(name, dag[name], outlooks, arguments)
    return outlooks


def _in_order(dag: dict[str, Any]) -> list[str]:
    ordered: list[str] = []
    while len(ordered) < len(dag):
        ready = [n for n, task in dag.items() if n not in ordered and set(task.get("dependentTasks", ())) <= {*ordered}]
        ordered += ready
    return ordered


def _look(name: str, task: dict[str, Any], outlooks: dict[str, Outlook], arguments: dict[str, str]) -> Outlook:
    """Call a component's function with the files that its producers have left, or with none where they would run."""
    step = name.replace("-", "_")
    function = getattr(import_module(f"components.{step}.component"), step).python_func
    given: dict[str, Any] = {}
    for parameter, source in task["inputs"].get("parameters", {}).items():
        constant = source.get("runtimeValue", {}).get("constant")
        given[parameter] = arguments[source["componentInputParameter"]] if constant is None else constant
    for artefact, source in task["inputs"].get("artifacts", {}).items():
        made = source["taskOutputArtifact"]
        producer = outlooks[made["producerTask"]]
        folder = producer.folder if producer.reused and producer.folder is not None else Path(_PENDING)
        given[artefact] = SimpleNamespace(path=str(folder / made["outputArtifactKey"]))
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in given and parameter.default is inspect.Parameter.empty:
            given[parameter.name] = SimpleNamespace(path=f"{_PENDING}/{parameter.name}")
    with planning() as seen:
        function(**given)
    [outlook] = seen
    return outlook


def _planned(outlook: Outlook, cluster: Cluster) -> PlannedStep:
    size = cluster.size_of(outlook.step)
    known = outlook.seconds if not outlook.reused else None
    return PlannedStep(
        step=outlook.step,
        does="reuse" if outlook.reused else "run",
        why=outlook.why or "the same inputs, settings and code",
        image=cluster.image_of(outlook.step),
        cpu=size.cpu,
        memory_gib=size.memory_gib,
        gpus=size.gpus,
        last_s=outlook.seconds,
        cost=None if known is None else cluster.prices.cost(size, known),
    )
