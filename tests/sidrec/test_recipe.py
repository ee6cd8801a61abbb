"""A recipe holds every value of a run, and nothing unknown."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from sidrec.errors import RecipeError, UsageError
from sidrec.recipe import CodebookRecipe, RepeatRecipe, build, load_recipe, parse_recipe, recipe_hash

RECIPES = sorted((Path(__file__).parents[2] / "pipelines" / "recipes").glob("*.yaml"))
TEXT = next(path for path in RECIPES if path.name == "s2gr_retail.yaml").read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    """A shipped recipe loads and is called what its file is called."""
    assert load_recipe(path)[1].name == path.stem


def test_gate_window_ends_where_the_as_of_date_begins() -> None:
    """The fit period ends the day before the gate window, which has gate_days days."""
    assert parse_recipe(TEXT).gate_start == date(2010, 11, 1)


def test_unknown_key_is_refused_by_name() -> None:
    """A misspelt key is an error that names it."""
    with pytest.raises(RecipeError, match=r"decoding\.beam_widht"):
        parse_recipe(TEXT.replace("beam_width:", "beam_widht:"))


def test_every_fault_is_named_at_once() -> None:
    """Two faults are reported together, with the values seen."""
    text = TEXT.replace("beam_width: 50", "beam_width: 0").replace("gate_days: 30", "gate_days: soon")
    with pytest.raises(RecipeError, match=r"(?s)gate_days.*'soon'.*beam_width"):
        parse_recipe(text)


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "a: [", ""])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    """Text that is no YAML mapping is a recipe error, not a traceback."""
    with pytest.raises(RecipeError):
        parse_recipe(text)


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    """A path without a recipe is named."""
    with pytest.raises(RecipeError, match="nowhere"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_hash_ignores_comments_and_sees_values() -> None:
    """Comments do not change a recipe's hash; a value does."""
    same = recipe_hash(parse_recipe("# a comment\n" + TEXT))

    assert same == recipe_hash(parse_recipe(TEXT))
    assert same != recipe_hash(parse_recipe(TEXT.replace("seed: 0", "seed: 1")))


def test_a_value_is_found_by_its_path_in_recipes_that_have_it() -> None:
    """What a step's key is made of: of another kind's setting nothing, so that it changes no key."""
    recipe = parse_recipe(TEXT)

    assert recipe.section("decoding.beam_width") == recipe.section("decoding")["beam_width"] == 50
    assert [recipe.section(name) for name in ("corpus", "corpus.items", "seed.more", "name.x.y")] == [None] * 4


def test_training_set_must_cover_the_validation_days() -> None:
    """The repeat path is learnt on the training set, so it must reach back as far as the validation days."""
    text = TEXT.replace("history_cap: 200", "history_cap: 200\n  training_set_days: 7")
    with pytest.raises(RecipeError, match="training_set_days is 7"):
        parse_recipe(text)


REG4REC = next(path for path in RECIPES if path.name == "reg4rec_debug.yaml").read_text()


@pytest.mark.parametrize(
    ("seen", "instead", "said"),
    [
        ("quantizer: mpq", "quantizer: rqvae\n  collision_policy: extra_code", "a set of tokens has one a slot"),
        ("training:", "  category_weight: 0\ntraining:", "learns none"),
        ("history_cap: 200", "history_cap: 200\n  training_set_days: 7", "training_set_days is 7"),
    ],
)
def test_settings_of_the_second_system_that_contradict_each_other_are_refused(
    seen: str, instead: str, said: str
) -> None:
    text = REG4REC.replace("  collision_policy: nearest_free\n", "") if "collision_policy" in instead else REG4REC
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text.replace(seen, instead, 1))


SIDREASONER = next(path for path in RECIPES if path.name == "sidreasoner_debug.yaml").read_text()


@pytest.mark.parametrize(
    ("seen", "instead", "said"),
    [
        ("  num_levels: 3", "  quantizer: mpq\n  num_levels: 3", "one code after the other"),
        ("  num_levels: 3", "  num_levels: 26", "tokens have letters for 25"),
        ("activation:", "activation:\n  enabled: false", "learns to in activation"),
    ],
)
def test_settings_of_the_third_system_that_contradict_each_other_are_refused(
    seen: str, instead: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(SIDREASONER.replace(seen, instead, 1))


@pytest.mark.parametrize("policy", ["sinkhorn_last", "extra_code"])
def test_a_disambiguation_code_has_words_too(policy: str) -> None:
    """The third system takes any policy: it is a level of its own."""
    recipe = parse_recipe(SIDREASONER.replace("collision_policy: nearest_free", f"collision_policy: {policy}"))

    assert recipe.section("codebook")["collision_policy"] == policy


def test_a_recipe_loads_without_the_packages_of_its_system_and_building_it_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever compiles or submits needs no language model; whoever fits or opens one is told what to install."""
    monkeypatch.setattr("sidrec.systems.sidreasoner.packages.find_spec", lambda name: None)
    recipe = parse_recipe(SIDREASONER)
    with pytest.raises(UsageError, match="transformers, tokenizers, jinja2, peft, not installed") as refused:
        build(recipe)

    assert refused.value.next_step == "pip install 'sidrec[llm]'"


def test_recipes_load_where_nothing_of_a_language_model_is_installed() -> None:
    """All of them, in a process that can import neither torch nor transformers."""
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tokenizers', 'jinja2', 'httpx'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from sidrec.recipe import load_recipe\n"
        "for path in sys.argv[1:]: load_recipe(Path(path))\n"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, RECIPES)], check=True)


def test_a_recipe_says_what_its_system_has() -> None:
    """A codebook, a repeat path: nothing outside the systems asks which one it is."""
    recipes = {path.stem: load_recipe(path)[1] for path in RECIPES}
    fitted = {name for name, recipe in recipes.items() if isinstance(recipe, CodebookRecipe)}
    repeating = {name for name, recipe in recipes.items() if isinstance(recipe, RepeatRecipe)}

    assert fitted == {name for name in recipes if not name.startswith("popularity")}
    assert repeating == {name for name in recipes if name.startswith(("s2gr", "reg4rec"))}
