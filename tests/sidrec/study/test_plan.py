"""A plan reads a recipe's data and fits nothing."""

from pathlib import Path

import numpy as np
import pytest

from sidrec.errors import UsageError
from sidrec.quantization.config import CodebookConfig
from sidrec.recipe import load_recipe
from sidrec.study.plan import plan_of, stand_in_codes
from tests.sidrec.study.study_world import write_recipe, write_world

RECIPES = Path(__file__).parents[3] / "pipelines" / "recipes"


def test_a_system_without_a_plan_of_its_own_has_the_sizes_of_its_data(tmp_path: Path) -> None:
    """--data wins over the recipe's."""
    recipe = load_recipe(write_recipe(tmp_path / "tiny.yaml", tmp_path / "nowhere"))[1]
    said = plan_of(recipe, write_world(tmp_path / "world"))

    assert said["judged_rows"] == {"all": 60}
    assert (said["items"], said["users"], said["missing"]) == (24, 60, [])


def test_there_is_nothing_to_plan_where_nothing_is_fitted() -> None:
    with pytest.raises(UsageError, match="nothing is fitted of kind popularity"):
        plan_of(load_recipe(RECIPES / "popularity_retail.yaml")[1])


@pytest.mark.parametrize(("items", "width"), [(16, 2), (17, 3)])
def test_stand_in_codes_tell_items_apart(items: int, width: int) -> None:
    """By one more code where there are more items than semantic IDs, as a codebook's would."""
    codes = stand_in_codes(items, CodebookConfig(num_levels=2, codebook_size=4))

    assert codes.shape == (items, width)
    assert len(np.unique(codes, axis=0)) == items
    assert codes[:, :2].max() == 3
