"""A codebook lives through the autumn of Online Retail as the docs say, with a quantizer that is fitted in seconds."""

import pytest

from benchmarks.lifecycle import RECIPE, ROOT, markdown, run
from sidrec.recipe import S2GRRecipe, load_recipe


@pytest.mark.slow
def test_append_moves_nothing_refresh_keeps_its_budget_and_a_refit_moves_nearly_all() -> None:
    """Three months of real items: the reason why there is a life cycle."""
    recipe = load_recipe(RECIPE)[1]
    assert isinstance(recipe, S2GRRecipe)
    data = recipe.data.model_copy(update={"events": ROOT / recipe.data.events})
    codebook = recipe.codebook.model_copy(update={"quantizer": "residual_kmeans", "codebook_size": 128})
    result = run(recipe.model_copy(update={"data": data, "codebook": codebook}), repeats=1)
    rows = {(row["month"], row["verb"]): row for row in result["rows"]}

    assert result["fit"]["items"] == 3819
    for month, new in (("September", 93), ("October", 103), ("November", 57)):
        append, refresh = rows[month, "append"], rows[month, "refresh"]
        refit = rows[month, "refit, unaligned"]
        assert (append["new"], append["moved"], append["moved_since_august"]) == (new, 0, 0)
        assert refresh["churn"] <= recipe.lifecycle.churn_budget
        assert refresh["residual"]["refresh"] < refresh["residual"]["append"]
        assert refit["moved"] > 0.9 * 3819
    assert markdown(result).count("\n") == 2 + 9
