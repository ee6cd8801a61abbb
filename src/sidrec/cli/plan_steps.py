"""`sidrec plan --steps`: which steps of a run are done already, why the others run, and what they take and cost."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from sidrec.cli.console import emit
from sidrec.cli.run import PIPELINES, live_champion
from sidrec.errors import UsageError
from sidrec.recipe import load_recipe


def plan_steps(recipe: Path, pipeline: str, cluster: Path | None, *, as_json: bool) -> int:
    """Print the plan of a run that would start now; run nothing."""
    from pipelines.cluster import DEFAULT, load_cluster
    from pipelines.local import PIPELINES as COMPILED
    from pipelines.plan import plan

    if pipeline not in PIPELINES:
        raise UsageError(f"no pipeline is called {pipeline!r}", next_step=f"one of {', '.join(PIPELINES)}")
    text, parsed = load_recipe(recipe)
    _, champion = live_champion()
    settings = load_cluster(cluster or DEFAULT)
    said = plan(COMPILED[pipeline], {"recipe": text, "champion": champion, "broken": ""}, settings)
    emit({"recipe": parsed.name, "pipeline": pipeline, **said}, as_json, lambda: _show(said))
    return 0


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
