"""An explanation holds what the ranker did: its rationale, its items, and their worth without the rationale."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sidrec.data.catalog import Catalog
from sidrec.systems.base import ExplainingModel as Explaining
from sidrec.systems.base import Explanation as Explained
from sidrec.systems.base import Query
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.explain import ExplainingModel
from tests.sidrec.systems.sidreasoner.test_rank import NOTHING, QUERIES, query_of, ranker_of
from tests.sidrec.systems.sidreasoner.world import titled


@pytest.fixture(scope="module")
def catalog(world: Any) -> Catalog:
    return titled(world)


@pytest.mark.parametrize("mode", ["direct", "think"])
def test_rankings_are_the_rankers_and_say_what_thinking_did(lively: Backbone, catalog: Catalog, mode: str) -> None:
    """Scores behind the rationale beside exact direct ones, which are equal where nothing was thought."""
    ranker = ranker_of(lively, catalog, mode=mode)
    model = ExplainingModel(ranker)
    found = model.rank(QUERIES, beam_width=20, blocked=NOTHING)
    plain = ranker.rank(QUERIES, beam_width=20, blocked=NOTHING)

    assert isinstance(model, Explaining)
    assert len(model.explanations) == len(QUERIES)
    for query, own, expected, why in zip(QUERIES, found, plain, model.explanations, strict=True):
        assert isinstance(why, Explained)
        assert own.items.tolist() == expected.items.tolist()
        assert [item.item_id for item in why.items] == [catalog.item_ids[item] for item in own.items]
        assert (why.rationale != "") == (mode == "think")
        assert why.history[0] == catalog.title(int(query.items[-1]))
        exact = ranker.score([query], [torch.from_numpy(own.items)[None]])
        direct = [item.direct_log_prob for item in why.items]
        np.testing.assert_allclose(direct, exact[0][0].numpy(), atol=1e-4)
        if mode == "direct":
            np.testing.assert_allclose(direct, [item.score for item in why.items], atol=1e-4)
            assert "without the rationale" not in "".join(why.lines())


def test_a_rationale_names_items_by_title(backbone: Backbone, catalog: Catalog) -> None:
    """Behind every mention, also a repeated one; tokens that are no item stay as they are."""
    model = ExplainingModel(ranker_of(backbone, catalog))
    name, other = backbone.vocab.name(3), backbone.vocab.name(40)
    title = catalog.title(3)

    assert model._told(f"After {name}, {name} and <a_0>.") == f"After {name} [{title}], {name} [{title}] and <a_0>."
    assert model._told(f"{other};") == f"{other} [{catalog.title(40)}];"


def test_the_page_escapes_what_is_data(backbone: Backbone, catalog: Catalog) -> None:
    hostile = replace(catalog, titles=["<script>x</script>"] * len(catalog))
    model = ExplainingModel(ranker_of(backbone, hostile, mode="think"))
    model.rank([query_of(3)], beam_width=20, blocked=NOTHING)
    page = model.page(["<i>u</i>"], title="Why")

    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
    assert "&lt;i&gt;u&lt;/i&gt;" in page


def test_nothing_to_recommend_is_said(backbone: Backbone, catalog: Catalog) -> None:
    query = Query(np.array([3]), np.array([0]), np.array([0]), 99, 5, exclude_seen=False)
    model = ExplainingModel(ranker_of(backbone, catalog))
    model.rank([query], beam_width=20, blocked=~NOTHING)

    assert model.explanations[0].items == ()
    assert "Nothing is left to recommend" in model.page(["u"], title="Why")
