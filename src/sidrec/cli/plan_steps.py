"""`sidrec plan --steps` and `train-job`: what a run would do, take and cost; its fit as a job of several nodes."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Column, Table

from sidrec.cli.console import JsonFlag, emit
from sidrec.cli.run import PIPELINES, live_champion
from sidrec.errors import UsageError
from sidrec.recipe import load_recipe


def plan_steps(recipe: Path, pipeline: str, cluster: Path | None, *, as_json: bool) -> int:
    """Print the plan of a run that would start now; run nothing."""
    from pipelines.plan import plan

    made, arguments, settings, name = _asked(recipe, pipeline, cluster)
    said = plan(made, arguments, settings)
    emit({"recipe": name, "pipeline": pipeline, **said}, as_json, lambda: _show(said))
    return 0


def train_job(
    recipe: Annotated[Path, typer.Option(help="Recipe whose model is fitted.")],
    nodes: Annotated[int, typer.Option(min=1, help="Each with the GPUs that infra/cluster.yaml gives the step.")] = 2,
    pipeline: Annotated[str, typer.Option(help="training or codebook_refresh.")] = "training",
    cluster: Annotated[Path | None, typer.Option(help="Cluster settings; left out, infra/cluster.yaml.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Print the TrainJob that fits a recipe on several nodes; the run that follows finds its result done."""
    from pipelines.train_job import train_job as job_of

    made, arguments, settings, name = _asked(recipe, pipeline, cluster)
    job = job_of(made, arguments, settings, name=name, nodes=nodes)
    emit(job, as_json, lambda: print(yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=120), end=""))
    return 0


def _asked(recipe: Path, pipeline: str, cluster: Path | None) -> tuple[Any, dict[str, str], Any, str]:
    """Return a pipeline, the parameters that a run would give it now, the cluster's settings and the recipe's name."""
    from pipelines.cluster import DEFAULT, load_cluster
    from pipelines.local import PIPELINES as COMPILED

    if pipeline not in PIPELINES:
        raise UsageError(f"no pipeline is called {pipeline!r}", next_step=f"one of {', '.join(PIPELINES)}")
    text, parsed = load_recipe(recipe)
    arguments = {"recipe": text, "champion": live_champion()[1], "broken": ""}
    return COMPILED[pipeline], arguments, load_cluster(cluster or DEFAULT), parsed.name


def _show(said: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table(
        Column("step", no_wrap=True), "does", "why", "image", "cpu", "GiB", "gpu", "last took", "cost", box=None
    )
    for step in said["steps"]:
        image = step["image"].rpartition("/")[2].partition("@")[0]
        took = "-" if step["last_s"] is None else f"{step['last_s']:.0f} s"
        cost = "-" if step["cost"] is None else f"{step['cost']:.3f}"
        size = (f"{step['cpu']:g}", f"{step['memory_gib']:g}", str(step["gpus"] or "-"))
        table.add_row(step["step"], step["does"], step["why"], image, *size, took, cost)
    console.print(table)
    console.print(
        f"{said['run']} to run, {said['reused']} reused; {said['seconds']:.0f} s as they last took, "
        f"{said['cost']:.2f} {said['currency']}"
        + (f", without {', '.join(said['unknown'])}: never done here" if said["unknown"] else "")
    )
