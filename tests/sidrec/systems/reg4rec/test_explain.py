"""Explanations are the very paths of what is recommended, with categories by name and titles."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sidrec.codebook.plots import OTHER
from sidrec.errors import UsageError
from sidrec.systems.base import ExplainingModel as Promised
from sidrec.systems.base import Explains, Query
from sidrec.systems.reg4rec.categories import ItemCategories
from sidrec.systems.reg4rec.config import Reg4RecSearchConfig
from sidrec.systems.reg4rec.explain import TITLES, ExplainingModel
from sidrec.systems.reg4rec.paths_page import path_figure
from sidrec.systems.reg4rec.rank import Reg4RecRanker
from sidrec.systems.reg4rec.reasons import Explanation
from sidrec.systems.repeat import RepeatPath
from tests.sidrec.systems.reg4rec.conftest import system_of
from tests.sidrec.systems.reg4rec.test_rank import QUERIES
from tests.sidrec.systems.reg4rec.world import model_of, tables_of

FREE = np.zeros(64, dtype=np.bool_)
EVIL = "</script><script>alert('x')</script><b>&lt;"
PATH = RepeatPath((1.0, 0.5, -0.2, 0.1, 0.3, 0.2), (0.3, 0.1, 0.1, 0.2, 0.0, 0.0), 120.0)


@pytest.fixture
def ranker(world: Any) -> Reg4RecRanker:
    """A model of random weights, whose paths differ from item to item, and five categories of the shop."""
    from sidrec.decoding.token_sets import TokenSets

    tables = tables_of(world)
    sets = TokenSets.of(world.catalog.codes, 8)
    known = ItemCategories(tuple(f"name {number}" for number in range(5)), tables.category)
    masses = tables.prior.masses[-1]
    catalog = replace(world.catalog, titles=[f"title {item}" for item in range(63)] + [""])
    return Reg4RecRanker.of(model_of(), catalog, sets, Reg4RecSearchConfig(), masses, PATH, known)


def explained(ranker: Reg4RecRanker, queries: Sequence[Query], *, k: int = 4, blocked: Any = FREE) -> list[Explanation]:
    model = ExplainingModel(ranker)
    model.rank([replace(query, k=k) for query in queries], beam_width=20, blocked=blocked)
    return model.explanations


def test_what_is_explained_is_what_is_ranked(ranker: Reg4RecRanker) -> None:
    """Items, scores and the generator's own score, which the exact search gives alone."""
    asked = [replace(query, k=4) for query in QUERIES]
    rankings = ranker.rank(asked, beam_width=20, blocked=FREE)
    for query, ranking, one in zip(asked, rankings, explained(ranker, asked), strict=True):
        items = [ranker.catalog.index_of[item.item_id] for item in one.items]
        alone = ranker.score([query], [torch.tensor([items])])[0][0]

        assert items == ranking.items.tolist()
        assert [item.score for item in one.items] == ranking.scores.tolist()
        torch.testing.assert_close(torch.tensor([item.log_prob for item in one.items]), alone, rtol=1e-4, atol=1e-4)
        assert [item.path for item in one.items] == ["repeat" if item in query.items else "generator" for item in items]


def test_a_path_has_each_slot_once_in_the_order_of_confidence(ranker: Reg4RecRanker) -> None:
    """Codes are the item's, items left shrink to it, and orders differ between paths."""
    orders = set()
    for one in explained(ranker, QUERIES, k=20):
        for item in one.items:
            slots = [step.slot for step in item.steps]
            codes = ranker.catalog.codes[ranker.catalog.index_of[item.item_id]]
            taken: list[int] = []
            for step in item.steps:
                alike = (ranker.catalog.codes[:, taken] == codes[taken]).all(axis=1)
                assert step.num_items == int(alike.sum())
                taken.append(step.slot)

            assert sorted(slots) == [0, 1, 2]
            assert [step.code for step in item.steps] == [int(codes[slot]) for slot in slots]
            orders.add(tuple(slots))

    assert len(orders) > 1


@torch.no_grad()
def test_the_first_step_names_what_the_head_says(ranker: Reg4RecRanker) -> None:
    """The head on the state before any token, and the popular items of that category, blocked ones left out."""
    from sidrec.systems.reg4rec.model import Paths

    blocked = FREE.copy()
    blocked[::2] = True
    for query, one in zip(QUERIES, explained(ranker, QUERIES, blocked=blocked), strict=True):
        memory = ranker.encode([query])
        probs = ranker.model.category_log_probs(Paths(ranker.model, memory, memory.rank.amax(1, keepdim=True)).begin())
        best = int(probs.argmax())
        assert ranker.categories is not None
        members = [item for item in range(64) if int(ranker.categories.of_item[item]) == best and not blocked[item]]
        members.sort(key=lambda item: (-ranker.catalog.popularity[item], item))
        named = one.items[0].steps[0].named

        assert named is not None
        assert (named.category, named.name) == (best, f"name {best}")
        assert named.category_prob == pytest.approx(float(probs.exp().max()), abs=1e-5)
        assert named.titles == tuple(ranker.catalog.title(item) for item in members[:TITLES])


def test_pruning_is_said(ranker: Reg4RecRanker) -> None:
    """A share where paths were tested, a sentence where none was; consistency is of neighbouring steps."""
    strict = replace(ranker, search=Reg4RecSearchConfig(consistency=1.0, prune_from=2))
    plain, pruned = explained(ranker, QUERIES[:1])[0], explained(strict, QUERIES[:1])[0]
    item = pruned.items[0]
    named = [step.named.category for step in item.steps if step.named is not None]

    assert plain.pruning_survival is None
    assert "no path was tested" in "\n".join(plain.lines())
    assert pruned.pruning_survival is not None
    assert 0 <= pruned.pruning_survival < 1
    assert f"{1 - pruned.pruning_survival:.0%} of the tested paths were pruned" in "\n".join(pruned.lines())
    assert item.consistency == ((named[0] == named[1]) + (named[1] == named[2])) / 2
    assert json.loads(json.dumps(pruned.as_dict()))["items"][0]["consistency"] == item.consistency


def test_a_model_without_categories_still_tells_its_paths(ranker: Reg4RecRanker, world: Any) -> None:
    """No name and no titles where none were kept; nothing named where none were learnt."""
    old = explained(replace(ranker, categories=None), QUERIES[:1])[0]
    mute = replace(ranker, model=model_of(category_weight=0.0))
    none = explained(mute, QUERIES[:1])[0]
    named = old.items[0].steps[0].named

    assert named is not None
    assert (named.name, named.titles) == (None, ())
    assert [step.named for step in none.items[0].steps] == [None] * 3
    assert none.items[0].consistency is None


def test_titles_and_names_are_text_on_the_page(ranker: Reg4RecRanker) -> None:
    """Whatever a shop calls its things; equal explanations are equal bytes, one plot an item."""
    assert ranker.categories is not None
    evil = replace(
        ranker,
        catalog=replace(ranker.catalog, titles=[EVIL] * 64),
        categories=replace(ranker.categories, names=(EVIL,) * 5),
    )
    model = ExplainingModel(evil)
    model.rank([replace(query, k=2) for query in QUERIES[:2]], beam_width=20, blocked=FREE)
    page = model.page(["ann", EVIL], title="paths")

    # A plot's labels know markup of their own, so what is in them is escaped once more than JSON does.
    labels = path_figure(model.explanations[0].items[0].steps).layout.yaxis.ticktext
    assert "<script>alert" not in page
    assert all("<script" not in label and "&lt;script" in label for label in labels)
    assert page.count('class="plotly-graph-div"') == 4
    assert OTHER in page
    assert page == model.page(["ann", EVIL], title="paths")


def test_the_system_promises_explanations(ranker: Reg4RecRanker) -> None:
    system = system_of()
    assert isinstance(system, Explains)
    assert isinstance(system.explaining(ranker), Promised)


def test_several_slots_a_step_are_refused(ranker: Reg4RecRanker) -> None:
    with pytest.raises(UsageError, match="only with 1 an item has one path"):
        ExplainingModel(replace(ranker, search=Reg4RecSearchConfig(slots_per_step=2)))
