"""A recipe holds every value of a run, and nothing unknown."""

from datetime import date
from pathlib import Path

import pytest

from sidrec.errors import RecipeError
from sidrec.recipe import CodebookRecipe, load_recipe, parse_recipe, recipe_hash

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


def test_training_set_must_cover_the_validation_days() -> None:
    """The repeat path is learnt on the training set, so it must reach back as far as the validation days."""
    text = TEXT.replace("history_cap: 200", "history_cap: 200\n  training_set_days: 7")
    with pytest.raises(RecipeError, match="training_set_days is 7"):
        parse_recipe(text)


REG4REC = next(path for path in RECIPES if path.name == "reg4rec_retail.yaml").read_text()


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


def test_a_recipe_says_whether_its_system_has_a_codebook() -> None:
    """Nothing outside the systems asks which one it is."""
    has = {path.stem: isinstance(load_recipe(path)[1], CodebookRecipe) for path in RECIPES}

    assert has["s2gr_retail"]
    assert has["reg4rec_retail"]
    assert not has["popularity_retail"]
