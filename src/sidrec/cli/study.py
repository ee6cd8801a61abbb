"""`sidrec plan`, `evaluate` and `ablate`: what a recipe needs; a recipe, or variants of one, beside the floors."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markdown import Markdown

from sidrec import home
from sidrec.cli.console import JsonFlag, emit

Out = Annotated[Path | None, typer.Option(help="Folder of the cells and the table; left out, under SIDREC_HOME.")]


def mount(app: typer.Typer) -> None:
    """Add the commands."""
    from sidrec.cli.plan_steps import train_job

    app.command()(plan)
    app.command(name="train-job")(train_job)
    app.command()(evaluate)
    app.command()(ablate)


def plan(
    recipe: Annotated[Path, typer.Option(help="Recipe whose fit is looked at and not made.")],
    data: Annotated[Path | None, typer.Option(help="Events, or a folder of them, instead of the recipe's.")] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="A run's steps instead: reused or run and why, image, GPUs, cost.")
    ] = False,
    pipeline: Annotated[str, typer.Option(help="With --steps: training or codebook_refresh.")] = "training",
    cluster: Annotated[
        Path | None, typer.Option(help="With --steps: cluster settings; left out, infra/cluster.yaml.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Say what a fit would learn from and what this machine lacks for it; fit nothing."""
    from sidrec.recipe import load_recipe
    from sidrec.study.plan import plan_of

    if steps:
        from sidrec.cli.plan_steps import plan_steps

        return plan_steps(recipe, pipeline, cluster, as_json=as_json)
    said = plan_of(load_recipe(recipe)[1], data)
    emit(said, as_json, lambda: print(yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=120)))
    return 1 if said["missing"] else 0


def evaluate(
    recipe: Annotated[Path, typer.Option(help="Recipe whose system is fitted and judged by its own protocol.")],
    data: Annotated[Path | None, typer.Option(help="Events, or a folder of them, instead of the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    target: Annotated[str, typer.Option(help="`test`, or `valid` where settings are chosen.")] = "test",
    out: Out = None,
    as_json: JsonFlag = False,
) -> int:
    """Fit a recipe once a seed and judge it beside the floors, with intervals."""
    from sidrec.recipe import load_recipe
    from sidrec.study.config import StudyConfig

    name = load_recipe(recipe)[1].name
    values = {"name": name, "recipe": recipe, "data": data, "target": target, "seeds": tuple(range(seeds))}
    return _run(StudyConfig.model_validate({**values, "variants": {name: {}}}), out, as_json)


def ablate(
    study: Annotated[Path, typer.Argument(help="Study file: a recipe, variants, seeds, comparisons.")],
    out: Out = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this variant or floor; repeatable.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Fit nothing: tabulate what is finished.")] = False,
    plots: Annotated[
        Path | None, typer.Option(help="Fit nothing: draw what is finished into this folder (docs/studies.md).")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Fit every variant of a study that is not finished, and print one table with intervals."""
    from sidrec.study.config import load_study

    read = load_study(study)
    if plots is not None:
        from sidrec.study.plots import draw

        drawn = [str(path) for path in draw(read, _folder(read, out), plots, only=only or ())]
        emit({"drawn": drawn}, as_json, lambda: print("\n".join(drawn)))
        return 0
    return _run(read, out, as_json, only=only or (), table=table)


def _run(study: Any, out: Path | None, as_json: bool, *, only: Any = (), table: bool = False) -> int:
    from sidrec.study.run import run_study, tabulate
    from sidrec.study.summary import markdown

    folder = _folder(study, out)
    result = tabulate(study, folder) if table else run_study(study, folder, only=only)
    emit(result, as_json, lambda: Console().print(Markdown(markdown(result))))
    return 0


def _folder(study: Any, out: Path | None) -> Path:
    return out or home.home() / "studies" / str(study.name)
