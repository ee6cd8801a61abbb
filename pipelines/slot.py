"""A slot: one pipeline over one state of the data with one recipe and one code version.

Its folder holds the recipe, the steps' log and the result; running a finished slot again is a no-op.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidrec import files, home
from sidrec.errors import RecipeError
from sidrec.recipe import Recipe, recipe_hash

LIBRARY = Path(__file__).parents[1] / "src" / "sidrec"


@dataclass(frozen=True, slots=True)
class Slot:
    """What a run is for, and where it is recorded."""

    slot_id: str
    folder: Path

    @property
    def result_path(self) -> Path:
        """The file whose existence says that a run of this slot ended, well or badly."""
        return self.folder / "result.json"

    @property
    def log_path(self) -> Path:
        """Everything that the steps printed."""
        return self.folder / "log.txt"

    def result(self) -> dict[str, Any] | None:
        """Return how the slot's last run ended, None while it has not."""
        return files.read_json(self.result_path) if self.result_path.exists() else None

    def steps(self) -> list[dict[str, Any]]:
        """Return the step log of the slot's last run, oldest first."""
        path = self.folder / "steps.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def slot_of(recipe: Recipe, *, pipeline: str = "training", parent: str = "", broken: str = "") -> Slot:
    """Return the slot of a recipe over the data and the code as they are now.

    Args:
        parent: id of the live bundle, for a pipeline that carries it on: another parent is another slot.
        broken: fault that the run is given on purpose.

    Raises:
        RecipeError: a file of the data is not there.
    """
    sources = {
        "data.events": recipe.data.events,
        "data.items": recipe.data.items,
        "embedding.vectors": recipe.embedding.vectors,
    }
    for name, path in sources.items():
        if path is not None and not path.exists():
            raise RecipeError(
                f"{name}: no file at {path}; a relative path starts at {Path.cwd()}",
                next_step="see docs/your-data.md",
            )
    content = {
        "pipeline": pipeline,
        "as_of": str(recipe.as_of),
        "data": {name: files.sha256_tree(path) for name, path in sources.items() if path is not None},
        "recipe": recipe_hash(recipe),
        "code": _code_version(),
    }
    content |= {name: value for name, value in (("parent", parent), ("broken", broken)) if value}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    named = recipe.name if pipeline == "training" else f"{recipe.name}-{pipeline}"
    slot_id = f"{named}-{recipe.as_of}-{digest[:10]}"
    return Slot(slot_id, home.runs_dir() / slot_id)


def latest_slot() -> Slot | None:
    """Return the slot that ran last, None before the first run."""
    results = sorted(home.runs_dir().glob("*/started.json"), key=lambda path: path.stat().st_mtime)
    return Slot(results[-1].parent.name, results[-1].parent) if results else None


def _code_version() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for folder in (LIBRARY, root / "components", root / "pipelines", root / "serving"):
        digest.update(files.sha256_sources(folder).encode())
    return digest.hexdigest()
