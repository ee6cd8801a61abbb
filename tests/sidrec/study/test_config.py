"""A study names its cells, and a cell's key changes with what its result depends on."""

from pathlib import Path
from typing import Any

import pytest

from sidrec.errors import RecipeError
from sidrec.study.config import StudyConfig, cell_key, cells_of, load_study, variant_recipe
from tests.sidrec.study.study_world import write_recipe

STUDIES = sorted((Path(__file__).parents[3] / "pipelines" / "studies").glob("*.yaml"))


def study_of(tmp_path: Path, **change: Any) -> StudyConfig:
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "world")
    values = {"name": "tiny", "recipe": recipe, "variants": {"s2gr": {}, "tiger": {"model": {"thinking": "none"}}}}
    return StudyConfig.model_validate({**values, **change})


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_loads_with_all_its_cells(path: Path) -> None:
    study = load_study(path)
    for variant in study.variants:
        variant_recipe(study, variant, study.seeds[0])

    known = {variant for variant, _ in cells_of(study)}
    assert study.name == path.stem
    assert {name for pair in study.compare for name in pair} <= known


def test_a_variant_changes_only_what_it_names(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    plain, changed = variant_recipe(study, "s2gr", 0), variant_recipe(study, "tiger", 0)

    assert changed.model_dump(exclude={"model"}) == plain.model_dump(exclude={"model"})
    assert changed.section("model") == {**plain.section("model"), "thinking": "none"}


def test_a_variant_may_be_of_another_recipe(tmp_path: Path) -> None:
    """With changes of its own; its key is that in a study of that recipe, so finished cells can be shared."""
    other = write_recipe(tmp_path / "other.yaml", tmp_path / "world", epochs=7)
    changes = {"model": {"thinking": "none"}}
    study = study_of(tmp_path, variants={"own": {}, "other": {"recipe": str(other), **changes}})
    alone = study_of(tmp_path, recipe=other, variants={"other": changes})
    recipe = variant_recipe(study, "other", 0)

    assert (recipe.section("training")["epochs"], recipe.section("model")["thinking"]) == (7, "none")
    assert variant_recipe(study, "own", 0).section("training")["epochs"] != 7
    assert cell_key(recipe, "test", "d") == cell_key(variant_recipe(alone, "other", 0), "test", "d")


def test_a_variant_of_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    study = study_of(tmp_path, variants={"odd": {"model": {"depth": 3}}})
    with pytest.raises(RecipeError, match=r"model\.depth"):
        variant_recipe(study, "odd", 0)


def test_a_key_changes_with_settings_seed_target_and_data_and_with_nothing_else(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    recipe = variant_recipe(study, "s2gr", 0)
    key = cell_key(recipe, "test", "d")
    others = [
        cell_key(variant_recipe(study, "tiger", 0), "test", "d"),
        cell_key(variant_recipe(study, "s2gr", 1), "test", "d"),
        cell_key(recipe, "valid", "d"),
        cell_key(recipe, "test", "other"),
    ]
    renamed = recipe.model_copy(
        update={"name": "else", "serving": recipe.serving.model_copy(update={"clock": "event"})}
    )

    assert len({key, *others}) == 5
    assert cell_key(renamed, "test", "d") == key


def test_seeds_that_stand_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        study_of(tmp_path, seeds=(1, 1))


def test_a_study_with_an_unknown_key_or_no_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nrecipe: r.yaml\nvariants: {a: {}}\nseed: 3\n")
    with pytest.raises(RecipeError, match="seed: Extra"):
        load_study(path)
    with pytest.raises(RecipeError, match="nowhere"):
        load_study(tmp_path / "nowhere.yaml")
