"""A whole study: floors and variants, cell after cell; what is finished is not done again."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.errors import UsageError
from sidrec.recipe import CodebookRecipe
from sidrec.study.cell import floor_cell, model_cell
from sidrec.study.config import StudyConfig, cells_of, variant_recipe
from sidrec.study.data import StudyData, study_data
from sidrec.study.summary import markdown, summarise


def run_study(study: StudyConfig, out: Path, *, only: Sequence[str] = ()) -> dict[str, Any]:
    """Write every cell and `table.json`, `table.md` into `out`, and return the table.

    Args:
        only: variants and floors (`floor_ease`) to do now; the table still holds every finished one.

    Raises:
        UsageError: `only` names what the study does not have.
    """
    cells: list[dict[str, Any]] = []
    plan = cells_of(study)
    if unknown := sorted(set(only) - {variant for variant, _ in plan}):
        raise UsageError(f"{', '.join(unknown)} not in study {study.name}: {', '.join(dict(plan))}")
    loaded: dict[tuple[str, str], StudyData] = {}
    for variant, seed in plan:
        if only and variant not in only:
            continue
        cells.append(run_cell(study, variant, seed, out, loaded))
        metrics = cells[-1]["metrics"]
        said = ", ".join(f"{kind} {values['ndcg@10']:.4f}" for kind, values in metrics.items())
        print(f"study {study.name}: {variant} seed {seed}: NDCG@10 {said}", file=sys.stderr, flush=True)
    return tabulate(study, out)


def run_cell(
    study: StudyConfig, variant: str, seed: int, out: Path, loaded: dict[tuple[str, str], StudyData] | None = None
) -> dict[str, Any]:
    """Return one cell's result, fitted where it is not finished.

    Args:
        loaded: data that earlier cells read, by recipe part and target; it is added to.
    """
    is_floor = variant.startswith("floor_")
    recipe = variant_recipe(study, next(iter(study.variants)) if is_floor else variant, seed)
    cache = {} if loaded is None else loaded

    def data(target: str) -> StudyData:
        parts = recipe.model_dump(mode="json", include={"data", "evaluation", "features", "as_of", "gate_days"})
        key = (str(parts), target)
        if key not in cache:
            cache[key] = study_data(recipe, target)  # type: ignore[arg-type]
        return cache[key]

    if is_floor:
        return floor_cell(variant.removeprefix("floor_"), recipe, data(study.target), study.target, seed=seed, out=out)
    validation = None
    stops_early = isinstance(recipe, CodebookRecipe) and recipe.training.validate_every > 0
    if stops_early and study.target == "test" and recipe.evaluation.protocol != "next_basket_v1":
        validation = data("valid").protocol
    return model_cell(recipe, data(study.target), study.target, variant=variant, out=out, validation=validation)


def tabulate(study: StudyConfig, out: Path) -> dict[str, Any]:
    """Write and return the table of the cells that are finished in `out`.

    Raises:
        UsageError: none is.
    """
    paths = [out / f"{variant}-s{seed}.json" for variant, seed in cells_of(study)]
    cells = [files.read_json(path) for path in paths if path.exists()]
    if not cells:
        raise UsageError(f"no finished cell of {study.name} in {out}", next_step="sidrec ablate")
    table = summarise(study, cells, out)
    files.write_json_atomic(out / "table.json", table)
    files.write_text_atomic(out / "table.md", markdown(table))
    return table
