"""Fit and judge one cell of a study."""

import shutil
from pathlib import Path

import yaml

from sidrec import files
from sidrec.study.cell import work_folder
from sidrec.study.config import StudyConfig
from sidrec.study.run import run_cell


def run(study: str, recipe: str, variant: str, seed: int, out: str, logs: str) -> dict[str, float]:
    """Return the cell's headline metrics; its rows lie in `out`, its TensorBoard files in `logs`.

    Args:
        study: the study's YAML text.
        recipe: text of the recipe that it names; a step may run where that file is not.
        out: folder that all cells of the study share.
    """
    folder = Path(out)
    config = study_of(study, recipe, folder)
    result = run_cell(config, variant, seed, folder)
    Path(logs).mkdir(parents=True, exist_ok=True)
    written = work_folder(variant, seed, result["key"]) / "logs"
    if written.is_dir():
        shutil.copytree(written, logs, dirs_exist_ok=True)
    return {f"{kind} {name}": value for kind, values in result["metrics"].items() for name, value in values.items()}


def study_of(study: str, recipe: str, folder: Path) -> StudyConfig:
    """Return the study with its recipe beside its cells."""
    path = folder / "recipe.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != recipe:
        files.write_text_atomic(path, recipe)
    return StudyConfig.model_validate({**yaml.safe_load(study), "recipe": path})
