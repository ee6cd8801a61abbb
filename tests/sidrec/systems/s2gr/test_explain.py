"""Explanations say what the tokens point at, in titles that are possible there, of exactly what is recommended."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from sidrec.codebook.plots import OTHER
from sidrec.data.catalog import PAD, Catalog, disambiguate
from sidrec.decoding.beam import score_items
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import UsageError
from sidrec.systems.base import Query
from sidrec.systems.repeat import RepeatPath
from sidrec.systems.s2gr.clusters import Clusters
from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.explain import NEAREST, TITLES, cluster_probs, explain
from sidrec.systems.s2gr.model import Decoding, S2GRModel
from sidrec.systems.s2gr.rank import S2GRRanker
from sidrec.systems.s2gr.statistics import nearest_clusters
from sidrec.systems.s2gr.steps import GeneratorSteps
from sidrec.systems.s2gr.thoughts import CodeStep, Explanation
from sidrec.systems.s2gr.thoughts_page import thoughts_page

DAY = 86_400
NOW = 14_914 * DAY
WIDTH, K, CLUSTERS = 40, 4, 5
EVIL = "</script><script>alert('x')</script><b>&lt;"
FREE = np.zeros(64, dtype=np.bool_)
PATH = RepeatPath((1.0, 0.5, -0.2, 0.1, 0.3, 0.2), (0.3, 0.1, 0.1, 0.2, 0.0, 0.0), 120.0)


def ranker_of(
    catalog: Catalog, config: S2GRModelConfig, *, levels: int = 3, repeat: RepeatPath | None = PATH, **changes: object
) -> S2GRRanker:
    """Return a ranker of random weights, large enough that its thoughts differ, and random clusters."""
    torch.manual_seed(0)
    trie = PrefixTrie.from_codes(catalog.codes)
    sizes = [8] * levels + [int(catalog.codes[:, -1].max()) + 1] * (catalog.num_codes - levels)
    model = S2GRModel(config.model_copy(update=changes), codebook_sizes=sizes, code_dim=4, num_nodes=trie.num_nodes)
    clusters = Clusters(torch.randint(0, CLUSTERS, (levels, 8)), torch.randn(levels, CLUSTERS, 4))
    return S2GRRanker.of(model, catalog, trie, torch.randn(trie.num_nodes), repeat, clusters)


def colliding(catalog: Catalog) -> Catalog:
    """Return the catalogue without its last level, so that items collide and some get a disambiguation code."""
    return replace(catalog, codes=disambiguate(np.ascontiguousarray(catalog.codes[:, :2])))


def queries(*, exclude_seen: bool = False, count: int = 5) -> list[Query]:
    rng = np.random.default_rng(1)
    asked = []
    for size in range(2, count + 2):
        basket = np.arange(size) // 2
        items = rng.permutation(64)[:size].astype(np.int64)
        asked.append(Query(items, NOW - 30 * DAY + basket * 5 * DAY, basket, NOW, K, exclude_seen))
    return asked


def steps_of(explanations: list[Explanation]) -> list[tuple[str, CodeStep]]:
    return [(item.item_id, step) for one in explanations for item in one.items for step in item.steps]


@pytest.mark.parametrize("space", ["projection", "token"])
@torch.no_grad()
def test_a_thought_is_a_distribution_over_clusters(world: Any, model_config: S2GRModelConfig, space: str) -> None:
    """Probabilities sum to 1, follow the temperature, and are largest where a plain loop finds the largest cosine."""
    ranker = ranker_of(world.catalog, model_config, align_space=space, align_temperature=0.2)
    tokens = torch.randn(7, 16)
    assert ranker.clusters is not None
    for level in range(3):
        probs, cosine = cluster_probs(ranker, level, tokens)
        expected = torch.tensor(
            [[float(_cosine(ranker, level, token, cluster)) for cluster in range(CLUSTERS)] for token in tokens]
        )

        torch.testing.assert_close(probs.sum(dim=1), torch.ones(7))
        torch.testing.assert_close(cosine, expected)
        torch.testing.assert_close(probs, (expected / 0.2).exp() / (expected / 0.2).exp().sum(dim=1, keepdim=True))
        assert probs.argmax(dim=1).tolist() == expected.argmax(dim=1).tolist()


def _cosine(ranker: S2GRRanker, level: int, token: Tensor, cluster: int) -> Tensor:
    assert ranker.clusters is not None
    if ranker.model.config.align_space == "projection":
        return cosine_similarity(ranker.model.to_code_space.weight @ token, ranker.clusters.centres[level, cluster], 0)
    members = [code for code in range(8) if ranker.clusters.of[level, code] == cluster]
    centre = sum((ranker.model.code_in[level][code] for code in members), torch.zeros(16)) / max(len(members), 1)
    return cosine_similarity(token, centre, 0)


@pytest.mark.parametrize("thinking", ["stepwise", "ahead"])
def test_a_thought_is_the_one_before_the_code(world: Any, model_config: S2GRModelConfig, thinking: str) -> None:
    """Each item's codes decoded alone, one after another, have the thoughts that the explanation names."""
    ranker = ranker_of(world.catalog, model_config, thinking=thinking)
    asked = queries()
    explanations = explain(ranker, asked, k=K, beam_width=WIDTH, blocked=FREE)
    for query, explanation in zip(asked, explanations, strict=True):
        for item in explanation.items:
            codes = world.catalog.encode(item.item_id)
            for step, cosine in zip(item.steps, _alone(ranker, query, codes), strict=True):
                order = cosine.argsort(descending=True).tolist()

                assert [cluster.cluster for cluster in step.nearest] == order[:NEAREST]
                assert step.chosen is not None
                for seen in (*step.nearest, step.chosen):
                    assert seen.cosine == pytest.approx(float(cosine[seen.cluster]), abs=1e-5)
                assert step.as_thought == (step.chosen.cluster == order[0])


@torch.no_grad()
def _alone(ranker: S2GRRanker, query: Query, codes: tuple[int, ...]) -> list[Tensor]:
    memory = ranker.encode([query])
    decoding = Decoding(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
    inputs, tokens = decoding.begin(), {}
    for level, code in enumerate(codes):
        _, found = decoding.next_logits(level, inputs)
        tokens |= found
        inputs = ranker.model.code_in[level][code].view(1, 1, -1)
    return [
        nearest_clusters(ranker.model, ranker.clusters, level, tokens[level][:, 0])[0] for level in range(len(codes))
    ]


def test_titles_are_possible_where_they_stand(world: Any, model_config: S2GRModelConfig) -> None:
    """Named items have the codes chosen so far and a code of the cluster; the most popular first, none blocked."""
    catalog = replace(world.catalog, titles=[f"title of {item}" for item in world.catalog.item_ids])
    ranker = ranker_of(catalog, model_config)
    assert ranker.clusters is not None
    blocked = np.arange(64) % 5 == 0
    empty = 0
    for item, step in steps_of(explain(ranker, queries(), k=K, beam_width=WIDTH, blocked=blocked)):
        codes = catalog.encode(item)
        assert step.chosen is not None
        for seen in (*step.nearest, step.chosen):
            possible = [
                (-int(catalog.popularity[row]), row)
                for row in range(64)
                if not blocked[row]
                and catalog.codes[row, : step.level].tolist() == list(codes[: step.level])
                and int(ranker.clusters.of[step.level, catalog.codes[row, step.level]]) == seen.cluster
            ]
            empty += not possible

            assert seen.num_items == len(possible)
            assert list(seen.titles) == [catalog.titles[row] for _, row in sorted(possible)][:TITLES]
        assert step.chosen.num_items > 0
        assert step.chosen.cluster == int(ranker.clusters.of[step.level, codes[step.level]])
    assert empty > 0


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("repeat", [None, PATH])
def test_what_is_explained_is_what_is_recommended(
    world: Any, model_config: S2GRModelConfig, exclude_seen: bool, repeat: RepeatPath | None
) -> None:
    """Items and scores are the ranker's, more users than it decodes at once, and blocked items stay out."""
    ranker = ranker_of(world.catalog, model_config, repeat=repeat)
    asked = queries(exclude_seen=exclude_seen, count=37)
    blocked = np.arange(64) % 9 == 0
    explanations = explain(ranker, asked, k=3, beam_width=WIDTH, blocked=blocked)
    rankings = ranker.rank([replace(query, k=3) for query in asked], beam_width=WIDTH, blocked=blocked)
    paths = set()
    for query, explanation, ranking in zip(asked, explanations, rankings, strict=True):
        rows = [world.catalog.index_of[item.item_id] for item in explanation.items]
        paths |= {item.path for item in explanation.items}

        assert rows == ranking.items.tolist()
        assert [item.score for item in explanation.items] == ranking.scores.tolist()
        for row, item in zip(rows, explanation.items, strict=True):
            again = repeat is not None and not exclude_seen and row in query.items
            assert item.path == ("repeat" if again else "generator")
            if repeat is None or exclude_seen:
                assert item.log_prob == pytest.approx(item.score, abs=1e-4)
            else:
                # The gate leaves a new item less than the generator gives it.
                assert again or item.log_prob > item.score
    assert paths == ({"generator", "repeat"} if repeat is not None and not exclude_seen else {"generator"})


@pytest.mark.parametrize("thinking", ["stepwise", "ahead"])
def test_codes_have_their_exact_probabilities(world: Any, model_config: S2GRModelConfig, thinking: str) -> None:
    """An item's codes together are as probable as the item; a disambiguation code counts and is in no cluster."""
    catalog = colliding(world.catalog)
    ranker = ranker_of(catalog, model_config, levels=2, thinking=thinking)
    asked = queries()
    explanations = explain(ranker, asked, k=6, beam_width=64, blocked=FREE)
    lengths = set()
    for query, explanation in zip(asked, explanations, strict=True):
        items = torch.tensor([[catalog.index_of[item.item_id] for item in explanation.items]])
        with torch.no_grad():
            steps = GeneratorSteps(ranker.model, ranker.encode([query]))
            exact = score_items(steps, ranker.trie, ranker.bias, items)[0].tolist()
        for item, log_prob in zip(explanation.items, exact, strict=True):
            sid = [code for code in catalog.encode(item.item_id) if code != PAD]
            lengths.add(len(sid))

            assert item.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert [step.code for step in item.steps] == sid
            assert [step.chosen is None for step in item.steps] == [False, False, True][: len(sid)]
            assert [step.as_thought is None for step in item.steps] == [False, False, True][: len(sid)]
    assert lengths == {2, 3}


def test_all_items_of_a_user_share_the_first_thought(world: Any, model_config: S2GRModelConfig) -> None:
    """Before the first code nothing tells them apart; users and later thoughts do differ."""
    explanations = explain(ranker_of(world.catalog, model_config), queries(), k=K, beam_width=WIDTH, blocked=FREE)
    firsts = [{item.steps[0].nearest for item in one.items} for one in explanations]

    assert [len(first) for first in firsts] == [1] * 5
    assert len(set.union(*firsts)) == 5
    assert any(len({item.steps[1].nearest for item in one.items}) > 1 for one in explanations)


def test_the_history_is_told_newest_first(world: Any, model_config: S2GRModelConfig) -> None:
    """Distinct titles, those of the newest; an item without a title is called by its id."""
    catalog = replace(world.catalog, titles=["", *world.catalog.titles[1:]])
    items = np.array([9, 10, 0, 11, 12, 13, 14, 15, 16, 17, 9])
    days = np.arange(len(items))
    query = Query(items, NOW - (20 - days) * DAY, days, NOW, K, exclude_seen=False)
    explained = explain(ranker_of(catalog, model_config), [query], k=1, beam_width=WIDTH, blocked=FREE)[0]

    assert explained.history == ("i09", "i17", "i16", "i15", "i14", "i13", "i12", "i11")
    assert explain(ranker_of(catalog, model_config), [replace(query, items=np.zeros(11, dtype=np.int64))], k=1,
                   beam_width=WIDTH, blocked=FREE)[0].history == ("i00",)  # fmt: skip


def test_nothing_left_to_recommend_is_no_error(world: Any, model_config: S2GRModelConfig) -> None:
    """With every item blocked the explanation has a history and no items, and its page says so."""
    explained = explain(ranker_of(world.catalog, model_config), queries(), k=K, beam_width=WIDTH, blocked=~FREE)

    assert [one.items for one in explained] == [()] * 5
    assert "Nothing is left" in thoughts_page({"u": explained[0]}, title="x")


def test_the_explanation_is_json(world: Any, model_config: S2GRModelConfig) -> None:
    """Everything in it, and whether each code is as thought."""
    explained = explain(ranker_of(world.catalog, model_config), queries(), k=K, beam_width=WIDTH, blocked=FREE)[0]
    value = json.loads(json.dumps(explained.as_dict()))

    step, plain = explained.items[0].steps[0], value["items"][0]["steps"][0]
    assert value["thinking"] == "stepwise"
    assert plain["as_thought"] is step.as_thought
    assert plain["nearest"][0]["titles"] == list(step.nearest[0].titles)
    assert plain["nearest"][0]["cluster_prob"] == step.nearest[0].cluster_prob


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thinking": "none"}, "thinking: none"),
        ({"thinking": "pause"}, "thinking: pause"),
        ({"align_weight": 0.0}, "align_weight: 0"),
        ({}, "no clusters"),
    ],
)
def test_a_model_without_thoughts_is_refused(
    world: Any, model_config: S2GRModelConfig, changes: dict[str, object], said: str
) -> None:
    """No tokens, tokens that were taught nothing, and weights from before clusters were kept: each is named."""
    ranker = ranker_of(world.catalog, model_config, **changes)
    if not changes:
        ranker = replace(ranker, clusters=None)

    with pytest.raises(UsageError, match=said) as caught:
        explain(ranker, queries(), k=K, beam_width=WIDTH, blocked=FREE)
    assert caught.value.next_step


def evil_page(world: Any, config: S2GRModelConfig) -> tuple[Explanation, str]:
    catalog = replace(world.catalog, titles=[EVIL] * 64)
    [explained] = explain(ranker_of(catalog, config), queries(count=1), k=K, beam_width=WIDTH, blocked=FREE)
    return explained, thoughts_page({EVIL: explained}, title=EVIL)


def test_the_page_stands_alone_and_titles_are_text(world: Any, model_config: S2GRModelConfig) -> None:
    """A plot of the first thought and one an item; a title or user that is a script is shown, not run."""
    explained, page = evil_page(world, model_config)

    assert page.count('class="plotly-graph-div"') == 1 + K
    assert EVIL not in page
    assert "<script>alert" not in page
    assert r"\u003cscript" not in page.lower()
    assert "alert(" in page
    assert "<script src=" not in page
    assert "<link" not in page
    assert 1_000_000 < len(page) < 8_000_000
    assert page == thoughts_page({EVIL: explained}, title=EVIL)


def test_the_chosen_path_stands_out_in_the_page(world: Any, model_config: S2GRModelConfig) -> None:
    """Each later thought marks one cluster, also one beyond the nearest; the first marks those of all items."""
    [explained] = explain(ranker_of(world.catalog, model_config), queries(count=1), k=K, beam_width=WIDTH, blocked=FREE)
    beyond = [step for _, step in steps_of([explained]) if step.chosen not in step.nearest]
    page = thoughts_page({"u": explained}, title="x")
    # Behind Plotly's own code; it writes non-ASCII characters as they are or escaped.
    drawn = page[page.index("</head>") :].replace("\\u2192", "→")

    assert beyond
    assert drawn.count("→ chosen") == 2 * K
    assert drawn.count(OTHER) == 2 * K + len({item.steps[0].chosen for item in explained.items})
    assert sum(drawn.count(f"→ {rank}.") for rank in range(1, K + 1)) == K
    assert drawn.count("cosine") == 3 * 2 * K + len([step for step in beyond if step.level]) + len(
        {cluster.cluster for item in explained.items for cluster in (*item.steps[0].nearest, item.steps[0].chosen)}  # type: ignore[union-attr]
    )


def test_without_plotly_the_page_says_what_to_install(
    world: Any, model_config: S2GRModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only drawing needs the extra."""
    monkeypatch.setitem(sys.modules, "plotly.offline", None)

    with pytest.raises(UsageError, match="Plotly") as caught:
        evil_page(world, model_config)
    assert "sidrec[reports]" in str(caught.value.next_step)
