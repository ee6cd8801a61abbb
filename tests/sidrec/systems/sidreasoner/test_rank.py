"""Answers: beams under the trie equal scoring every item by the whole model, with a rationale in front or without."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import UsageError
from sidrec.systems.base import Query, RankingModel
from sidrec.systems.sidreasoner import tasks
from sidrec.systems.sidreasoner.backbone import Backbone, open_backbone
from sidrec.systems.sidreasoner.config import SIDReasonerSearchConfig
from sidrec.systems.sidreasoner.encoding import direct_text, encode, question_text, rationale_text
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker, Thought
from sidrec.systems.sidreasoner.tokenizer import END_THINK
from tests.sidrec.systems.sidreasoner.world import titled

NOTHING = np.zeros(64, dtype=np.bool_)
DAY = 86_400


@pytest.fixture(scope="module")
def catalog(world: Any) -> Catalog:
    return titled(world)


def ranker_of(backbone: Backbone, catalog: Catalog, **search: Any) -> SIDReasonerRanker:
    config = SIDReasonerSearchConfig(**{"max_rationale_tokens": 12, **search})
    trie = PrefixTrie.from_codes(catalog.codes)
    return SIDReasonerRanker.of(backbone, catalog, trie, config, max_history=5, max_tokens=256)


def query_of(*items: int, k: int = 10, exclude_seen: bool = False) -> Query:
    basket = np.arange(len(items), dtype=np.int64)
    return Query(np.array(items), basket * DAY, basket, 99 * DAY, k, exclude_seen)


QUERIES = [query_of(3), query_of(9, 12, 40, 41, 8, 30, k=64), query_of(5, 5, k=3)]


@torch.no_grad()
def by_definition(backbone: Backbone, catalog: Catalog, text: str) -> np.ndarray:
    """Return log p of every item: at each level a softmax of the whole model's logits over the codes that follow."""
    prompt = encode(backbone.tokenizer, text)
    sids = [tuple(row) for row in catalog.codes.tolist()]
    scores = []
    for item, sid in enumerate(sids):
        ids = backbone.token_ids(backbone.vocab.tokens(item))
        logits = backbone.model(input_ids=torch.tensor([prompt + ids])).logits[0].double()
        total = 0.0
        for level in range(3):
            allowed = sorted({other[level] for other in sids if other[:level] == sid[:level]})
            words = backbone.token_ids([backbone.vocab.token(level, code) for code in allowed])
            total += float(logits[len(prompt) + level - 1, words].log_softmax(dim=-1)[allowed.index(sid[level])])
        scores.append(total)
    return np.array(scores)


def shown(backbone: Backbone, query: Query) -> str:
    return "; ".join(backbone.vocab.name(int(item)) for item in query.items[-5:])


def test_direct_answers_are_exhaustive_scoring(lively: Backbone, catalog: Catalog) -> None:
    """Prompts of different lengths in one batch; full width finds every item at its exact log-probability."""
    ranker = ranker_of(lively, catalog)
    rankings = ranker.rank(QUERIES, beam_width=64, blocked=NOTHING)
    [scores] = ranker.score(QUERIES, [torch.arange(64).expand(3, -1)])
    for row, (query, ranking) in enumerate(zip(QUERIES, rankings, strict=True)):
        expected = by_definition(
            lively, catalog, direct_text(lively.tokenizer, tasks.code_to_code(shown(lively, query)))
        )
        best = np.argsort(-expected)[: query.k]

        np.testing.assert_allclose(np.exp(expected).sum(), 1.0, atol=1e-6)
        np.testing.assert_allclose(scores[row].numpy(), expected, atol=2e-3)
        np.testing.assert_allclose(ranking.scores, expected[ranking.items], atol=2e-3)
        np.testing.assert_allclose(expected[ranking.items], expected[best], atol=2e-3)
        assert ranking.valid_beams == 64
    assert isinstance(ranker, RankingModel)


def test_sampling_defaults_of_a_checkpoint_cut_no_beams(lively: Backbone, catalog: Catalog, tmp_path: Path) -> None:
    """Released checkpoints come with top_k, top_p and a temperature, which `generate` obeys even in a beam search."""
    defaults = {"do_sample": True, "temperature": 0.6, "top_k": 2, "top_p": 0.1, "repetition_penalty": 1.5}
    plain, told = tmp_path / "plain", tmp_path / "told"
    for folder in (plain, told):
        lively.save(folder)
    (told / "generation_config.json").write_text(json.dumps(defaults))
    opened = [open_backbone(folder, lively.vocab) for folder in (plain, told)]
    assert opened[1].model.generation_config.top_k == 2

    for mode in ("direct", "think"):
        ours, theirs = (
            ranker_of(backbone, catalog, mode=mode).rank(QUERIES, beam_width=64, blocked=NOTHING) for backbone in opened
        )
        assert [ranking.valid_beams for ranking in theirs] == [64, 64, 64]
        for ranking, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(other.items, ranking.items)
            np.testing.assert_array_equal(other.scores, ranking.scores)


def test_think_answers_are_exhaustive_scoring_behind_the_rationale(lively: Backbone, catalog: Catalog) -> None:
    """The rationale is the one that `think` gives, and what follows it is read as it was learnt."""
    ranker = ranker_of(lively, catalog, mode="think")
    rankings = ranker.rank(QUERIES, beam_width=64, blocked=NOTHING)
    for query, ranking, thought in zip(QUERIES, rankings, ranker.think(QUERIES), strict=True):
        question = question_text(lively.tokenizer, tasks.think(shown(lively, query)).question())
        expected = by_definition(lively, catalog, question + rationale_text(thought.rationale))

        assert thought.rationale
        np.testing.assert_allclose(ranking.scores, expected[ranking.items], atol=2e-3)


def test_a_rationale_is_the_surest_word_each_time(lively: Backbone, catalog: Catalog) -> None:
    """Word by word by the whole model; one that does not end within its budget is cut there, and says so."""
    ranker = ranker_of(lively, catalog)
    for query, thought in zip(QUERIES, ranker.think(QUERIES), strict=True):
        question = question_text(lively.tokenizer, tasks.think(shown(lively, query)).question())
        ids = encode(lively.tokenizer, f"{question}<think>\n")
        start = len(ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(lively.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))

        assert thought == Thought(lively.tokenizer.decode(ids[start:]).strip(), ended=False, num_tokens=12)


def test_a_rationale_ends_where_its_mark_is(lively: Backbone, catalog: Catalog) -> None:
    """The mark belongs to no rationale; the end of the turn is an end that is not its own.

    A rationale that has neither, and words left, was out of time.
    """
    ranker = ranker_of(lively, catalog)
    end, stop = lively.token_ids([END_THINK, "<|im_end|>"])
    text = encode(lively.tokenizer, " so be it\n")

    assert ranker._thought([*text, end], end, stop) == Thought("so be it", True, len(text))
    assert ranker._thought([*text, stop], end, stop) == Thought("so be it", False, len(text))
    assert ranker._thought(text, end, stop) == Thought("so be it", False, len(text), hurried=True)
    assert not ranker._thought([text[0]] * 12, end, stop).hurried


def test_blocked_and_seen_items_are_in_no_answer(lively: Backbone, catalog: Catalog) -> None:
    """Each query's own history, and what is blocked for all; the others keep their log-probabilities."""
    ranker = ranker_of(lively, catalog)
    blocked = NOTHING.copy()
    blocked[[0, 7, 20]] = True
    queries = [query_of(3, 4, k=64, exclude_seen=True), query_of(3, 4, k=64)]
    without, plain = ranker.rank(queries, beam_width=64, blocked=blocked)

    assert set(without.items.tolist()) == set(range(64)) - {0, 7, 20, 3, 4}
    assert set(plain.items.tolist()) == set(range(64)) - {0, 7, 20}
    score = dict(zip(plain.items.tolist(), plain.scores.tolist(), strict=True))
    np.testing.assert_allclose(without.scores, [score[item] for item in without.items.tolist()], atol=1e-4)


def test_auto_thinks_only_where_direct_is_not_sure(lively: Backbone, catalog: Catalog) -> None:
    """Between two queries' margins, one keeps its direct answer and the other gets that behind a rationale."""
    queries = [query_of(item, k=1) for item in (3, 9, 17, 30)]
    wide = [replace(query, k=2) for query in queries]
    direct, think = (ranker_of(lively, catalog, mode=mode) for mode in ("direct", "think"))
    margins = [float(own.scores[0] - own.scores[1]) for own in direct.rank(wide, beam_width=20, blocked=NOTHING)]
    threshold = float(np.mean(sorted(margins)[1:3]))
    auto = ranker_of(lively, catalog, mode="auto", margin=threshold).rank(queries, beam_width=20, blocked=NOTHING)
    plain, thought = (own.rank(queries, beam_width=20, blocked=NOTHING) for own in (direct, think))
    for row, value in enumerate(margins):
        expected = thought[row] if value < threshold else plain[row]

        assert auto[row].items.tolist() == expected.items.tolist()
        np.testing.assert_allclose(auto[row].scores, expected.scores, atol=1e-5)


def test_a_rationale_comes_with_its_answer(lively: Backbone, catalog: Catalog) -> None:
    """Its words, and how many; direct answers have none."""
    think, direct = (ranker_of(lively, catalog, mode=mode) for mode in ("think", "direct"))
    for own, thought in zip(think.rank(QUERIES, beam_width=9, blocked=NOTHING), think.think(QUERIES), strict=True):
        assert own.rationale == thought.rationale != ""
        assert own.stats == {"rationale_tokens": 12.0, "rationale_ended": 0.0}
        assert not own.hurried
    assert [own.rationale for own in direct.rank(QUERIES, beam_width=9, blocked=NOTHING)] == [""] * 3


def test_a_query_whose_time_is_up_is_answered_directly(lively: Backbone, catalog: Catalog) -> None:
    """It says so; time enough changes nothing."""
    think, direct = (ranker_of(lively, catalog, mode=mode) for mode in ("think", "direct"))
    now = time.monotonic()
    late, early = (
        think.rank([replace(query, think_until=until) for query in QUERIES], beam_width=9, blocked=NOTHING)
        for until in (now - 1, now + 3600)
    )
    for hurried, plain in zip(late, direct.rank(QUERIES, beam_width=9, blocked=NOTHING), strict=True):
        assert (hurried.hurried, hurried.rationale) == (True, "")
        assert hurried.items.tolist() == plain.items.tolist()
    for calm, whole in zip(early, think.rank(QUERIES, beam_width=9, blocked=NOTHING), strict=True):
        assert (calm.hurried, calm.rationale) == (False, whole.rationale)


def test_another_architecture_is_refused(backbone: Backbone, catalog: Catalog) -> None:
    import copy

    other = copy.deepcopy(backbone.model)
    other.config.attention_bias = True
    with pytest.raises(UsageError, match="attention_bias"):
        ranker_of(replace(backbone, model=other), catalog)


@pytest.mark.parametrize(("first", "expected"), [(3, 1.0), (4, 0.0), (None, None)])
def test_a_thought_tells_whether_its_answer_agrees(first: int | None, expected: float | None) -> None:
    """The best item's first code is among those that the rationale names, or is not; without an item nobody knows."""
    thought = Thought("about <a_3> and <a_7>", ended=True, num_tokens=5, named=frozenset({3, 7}))

    assert thought.stats(first).get("reason_agreement") == expected
    assert "reason_agreement" not in Thought("about nothing", ended=True, num_tokens=2).stats(3)


def test_a_rationale_names_the_first_codes_that_it_writes(lively: Backbone, catalog: Catalog) -> None:
    """Tokens of the first level count, other words and deeper levels do not."""
    ranker = ranker_of(lively, catalog, mode="think")
    vocab = lively.vocab
    words = lively.token_ids([vocab.token(0, 2), vocab.token(1, 5), vocab.token(0, 6), END_THINK])
    end, stop = lively.token_ids([END_THINK, str(lively.tokenizer.eos_token)])

    assert ranker._thought(words, end, stop).named == {2, 6}
