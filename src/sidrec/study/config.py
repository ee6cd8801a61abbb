"""What a study is: a recipe, named changes of it, seeds, and who is compared with whom. Torch-free."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidrec.errors import RecipeError
from sidrec.recipe import Recipe, load_recipe, parse_recipe
from sidrec.settings import read_settings

NAME = r"^[a-z][a-z0-9_]*$"
DIGEST_LENGTH = 16
# What no result depends on, and what no fitted weight depends on either.
AFTER_RESULT = frozenset({"name", "data", "serving", "monitoring", "gates", "lifecycle"})
AFTER_FIT = AFTER_RESULT | {"alignment", "search", "decoding"}
SEEDED_FLOORS = ("sasrec", "sasrec_basket")


class StudyConfig(BaseModel):
    """One study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    recipe: Path = Field(description="The recipe that variants change; a relative path starts at the working folder.")
    data: Path | None = Field(None, description="Instead of the recipe's events.")
    target: Literal["valid", "test"] = Field("test", description="Rows that are judged; settings are chosen on valid.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    variants: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="Name -> changes of the recipe's sections; {} is the recipe itself. A `recipe` among them "
        "is another recipe to change, for the same rows.",
    )
    compare: tuple[tuple[str, str], ...] = Field((), description="Pairs (candidate, reference), paired by rows.")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed stands twice in {list(self.seeds)}")
        return self


def load_study(path: Path) -> StudyConfig:
    """Return the study in a YAML file.

    Raises:
        RecipeError: no such file, no YAML mapping, or an unknown key; every fault is named.
    """
    return read_settings(path, StudyConfig, "study", next_step="ls pipelines/studies", refused=RecipeError)


def variant_recipe(study: StudyConfig, variant: str, seed: int) -> Recipe:
    """Return the recipe of one cell.

    Raises:
        RecipeError: the variant changes what a recipe does not have.
    """
    changes = dict(study.variants[variant])
    text, _ = load_recipe(Path(changes.pop("recipe", study.recipe)))
    values = yaml.safe_load(text)
    if study.data is not None:
        values["data"]["events"] = str(study.data)
    merged = _merged(values, changes)
    return parse_recipe(yaml.safe_dump({**merged, "seed": seed}))


def cells_of(study: StudyConfig) -> list[tuple[str, int]]:
    """Return the (variant, seed) pairs of a study, floors first, then seed after seed."""
    evaluation = variant_recipe(study, next(iter(study.variants)), study.seeds[0]).evaluation
    basket = evaluation.protocol == "next_basket_v1"
    floors = evaluation.floors if basket else evaluation.sequence_floors
    plan = [(f"floor_{name}", study.seeds[0]) for name in floors]
    for seed in study.seeds:
        plan += [(f"floor_{name}", seed) for name in floors if name in SEEDED_FLOORS and seed != study.seeds[0]]
        plan += [(variant, seed) for variant in study.variants]
    return plan


def cell_key(recipe: Recipe, target: str, data: str) -> str:
    """Return the digest of what a cell's result depends on, the code apart.

    Args:
        data: digest of the files that are read.
    """
    return _digest(recipe, AFTER_RESULT, target, data)


def fit_key(recipe: Recipe, target: str, data: str) -> str:
    """Return the digest of what a cell's supervised model depends on: cells that differ later share one fit."""
    return _digest(recipe, AFTER_FIT, target, data)


def floor_key(recipe: Recipe, settings: str, data: str) -> str:
    """Return the digest of what a floor's result depends on: its own settings, the protocol and the data.

    Args:
        settings: the target and the floor with all its settings, its seed among them.
    """
    protocol = recipe.model_dump(mode="json", include={"evaluation", "as_of", "gate_days"})
    text = json.dumps({"recipe": protocol, "settings": settings, "data": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _digest(recipe: Recipe, without: frozenset[str], target: str, data: str) -> str:
    values = recipe.model_dump(mode="json", exclude=set(without))
    text = json.dumps({"recipe": values, "target": target, "data": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for name, change in changes.items():
        both = isinstance(change, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], change) if both else change
    return result
