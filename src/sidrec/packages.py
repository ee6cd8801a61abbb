"""What packages a recipe needs beyond the library's own, so that a run says what is missing before its first step.

Imports none of them.
"""

from importlib.util import find_spec

from sidrec.errors import UsageError
from sidrec.recipe import Recipe, SIDReasonerRecipe
from sidrec.systems.sidreasoner.packages import PACKAGES as LANGUAGE_MODEL


def packages_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Return the packages that a recipe's settings ask for, by the extra that installs them."""
    needed: dict[str, tuple[str, ...]] = {}
    if recipe.embedding.source == "sentence_transformer":
        needed["embedding"] = ("sentence_transformers",)
    if isinstance(recipe, SIDReasonerRecipe):
        served = ("httpx",) if recipe.corpus.teacher.kind == "openai" else ()
        needed["llm"] = (*LANGUAGE_MODEL, *served)
    return needed


def require_packages(recipe: Recipe) -> None:
    """Refuse a recipe that asks for packages which are not installed.

    Raises:
        UsageError: they are named, and so is what installs them.
    """
    absent = {
        extra: missing
        for extra, names in packages_of(recipe).items()
        if (missing := [name for name in names if find_spec(name) is None])
    }
    if absent:
        named = ", ".join(name for missing in absent.values() for name in missing)
        raise UsageError(
            f"recipe {recipe.name} needs {named}, not installed here",
            next_step=f"pip install 'sidrec[{','.join(absent)}]'",
        )
