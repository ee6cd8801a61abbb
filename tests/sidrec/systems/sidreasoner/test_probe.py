"""The probe says what the direct mode holds most probable along a true semantic ID, by the definition."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sidrec.data.catalog import PAD, Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.base import Query
from sidrec.systems.sidreasoner import tasks
from sidrec.systems.sidreasoner.backbone import Backbone, load
from sidrec.systems.sidreasoner.config import SIDReasonerSearchConfig
from sidrec.systems.sidreasoner.encoding import direct_text, encode
from sidrec.systems.sidreasoner.probe import probe
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker
from tests.sidrec.systems.sidreasoner.world import MODEL, titled, vocab_of

DAY = 86_400
HISTORIES = ([3], [9, 12, 40, 41], [5, 5], [60, 1])
TARGETS = [40, 0, 19, 1]


@pytest.fixture(scope="module")
def catalog(world: Any) -> Catalog:
    """The tiny catalogue with two items that one more code tells apart."""
    catalog = titled(world)
    codes = np.pad(catalog.codes, ((0, 0), (0, 1)), constant_values=PAD)
    codes[1, :3] = codes[0, :3]
    codes[[0, 1], 3] = [0, 1]
    return replace(catalog, codes=codes)


@pytest.fixture(scope="module")
def lively(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A small model with weights large enough that codes differ clearly."""
    folder: Path = tmp_path_factory.mktemp("probe")
    backbone = load(MODEL, vocab_of(catalog), catalog.titles * 3, folder, seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in backbone.model.parameters():
            if weight.ndim == 2:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return replace(backbone, model=backbone.model.eval())


def query_of(items: list[int]) -> Query:
    basket = np.arange(len(items), dtype=np.int64)
    return Query(np.array(items), basket * DAY, basket, 99 * DAY, 1, False)


@torch.no_grad()
def true_probs(backbone: Backbone, catalog: Catalog, items: list[int], target: int) -> list[tuple[bool, float]]:
    """Return, for each code that the target has, whether it is the most probable one, and how probable it is."""
    question = tasks.code_to_code("; ".join(backbone.vocab.name(item) for item in items))
    prompt = encode(backbone.tokenizer, direct_text(backbone.tokenizer, question))
    words = backbone.token_ids(backbone.vocab.tokens(target))
    logits = backbone.model(input_ids=torch.tensor([prompt + words])).logits[0].double()
    sids = [tuple(row) for row in catalog.codes.tolist()]
    found = []
    for level in range(len(words)):
        prefix = sids[target][:level]
        allowed = sorted({sid[level] for sid in sids if sid[:level] == prefix})
        tokens = backbone.token_ids([backbone.vocab.token(level, code) for code in allowed])
        probs = logits[len(prompt) + level - 1, tokens].softmax(dim=-1)
        place = allowed.index(sids[target][level])
        found.append((int(probs.argmax()) == place, float(probs[place])))
    return found


def test_shares_are_those_of_one_row_and_level_after_the_other(lively: Backbone, catalog: Catalog) -> None:
    """The last level counts only the two items that have a code there."""
    trie = PrefixTrie.from_codes(catalog.codes)
    ranker = SIDReasonerRanker.of(lively, catalog, trie, SIDReasonerSearchConfig(), max_history=5, max_tokens=256)
    found = probe(ranker, [query_of(items) for items in HISTORIES], torch.tensor(TARGETS))
    rows = [true_probs(lively, catalog, items, item) for items, item in zip(HISTORIES, TARGETS, strict=True)]
    levels = [[row[level] for row in rows if level < len(row)] for level in range(4)]
    prefixes = [[all(right for right, _ in row[: level + 1]) for row in rows if level < len(row)] for level in range(4)]

    assert [len(level) for level in levels] == [4, 4, 4, 2]
    assert 0 < sum(sum(right for right, _ in level) for level in levels) < 14
    assert found["code_accuracy"] == [round(float(np.mean([right for right, _ in level])), 4) for level in levels]
    assert found["prefix_accuracy"] == [round(float(np.mean(level)), 4) for level in prefixes]
    np.testing.assert_allclose(
        found["true_prob"], [np.mean([prob for _, prob in level]) for level in levels], atol=2e-3
    )


def test_nobody_asked_about_has_no_shares(lively: Backbone, catalog: Catalog) -> None:
    trie = PrefixTrie.from_codes(catalog.codes)
    ranker = SIDReasonerRanker.of(lively, catalog, trie, SIDReasonerSearchConfig(), max_history=5, max_tokens=256)

    assert probe(ranker, [], torch.tensor([], dtype=torch.int64)) == {}
