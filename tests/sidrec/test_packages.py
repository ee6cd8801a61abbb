"""Packages follow from a recipe's settings, and those that are not here are named before anything is done."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidrec import packages
from sidrec.errors import UsageError
from sidrec.packages import packages_of, require_packages
from sidrec.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[2]


def recipe_of(name: str, **changes: dict[str, Any]) -> Recipe:
    values = yaml.safe_load((ROOT / "pipelines" / "recipes" / f"{name}.yaml").read_text())
    for section, change in changes.items():
        values[section] |= change
    return parse_recipe(yaml.safe_dump(values))


LANGUAGE_MODEL = ("transformers", "tokenizers", "jinja2", "peft")
SENTENCES = {"source": "sentence_transformer", "model": "a-folder"}
SERVED = {"teacher": {"kind": "openai"}}


@pytest.mark.parametrize(
    ("recipe", "needed"),
    [
        (recipe_of("s2gr_debug"), {}),
        (recipe_of("reg4rec_debug", embedding=SENTENCES), {"embedding": ("sentence_transformers",)}),
        (recipe_of("sidreasoner_debug"), {"llm": LANGUAGE_MODEL}),
        (recipe_of("sidreasoner_debug", corpus=SERVED), {"llm": (*LANGUAGE_MODEL, "httpx")}),
    ],
)
def test_settings_decide_what_is_needed(recipe: Recipe, needed: dict[str, tuple[str, ...]]) -> None:
    assert packages_of(recipe) == needed


def test_all_that_is_absent_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("sidreasoner_debug", embedding=SENTENCES, corpus=SERVED)
    monkeypatch.setattr(
        packages, "find_spec", lambda name: object() if name in ("jinja2", "tokenizers", "peft") else None
    )

    with pytest.raises(UsageError, match="needs sentence_transformers, transformers, httpx, not installed") as refused:
        require_packages(recipe)
    assert refused.value.next_step == "pip install 'sidrec[embedding,llm]'"


def test_an_extra_installs_what_is_asked_of_it() -> None:
    """By the names that packages are installed under."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    recipe = recipe_of("sidreasoner_debug", embedding=SENTENCES, corpus=SERVED)
    known = packages_distributions()
    for extra, names in packages_of(recipe).items():
        pinned = {line.split("[")[0].split("=")[0].split(">")[0].casefold() for line in extras[extra]}

        for name in names:
            installed_as = known.get(name, [name.replace("_", "-")])
            assert pinned & {one.casefold() for one in installed_as}


def test_looking_imports_none_of_them() -> None:
    code = (
        "import sys, pathlib\n"
        "from sidrec.packages import require_packages\n"
        "from sidrec.recipe import load_recipe\n"
        "require_packages(load_recipe(pathlib.Path('pipelines/recipes/sidreasoner_debug.yaml'))[1])\n"
        "print({'torch', 'transformers', 'tokenizers', 'jinja2'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
