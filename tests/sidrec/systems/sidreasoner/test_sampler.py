"""Samples: what is drawn, by which odds, and that every action's log-probability is the whole model's."""

from collections import Counter
from typing import Any

import pytest
import torch

from sidrec.data.catalog import PAD
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import SIDReasonerAlignmentConfig
from sidrec.systems.sidreasoner.encoding import encode
from sidrec.systems.sidreasoner.points import Point, points_of
from sidrec.systems.sidreasoner.rank import think_text
from sidrec.systems.sidreasoner.rewards import WRONG
from sidrec.systems.sidreasoner.sampler import Sampler, _Policy
from sidrec.systems.sidreasoner.samples import NOWHERE, Samples, action_log_probs
from tests.sidrec.systems.sidreasoner.world import histories


def sampler_of(backbone: Backbone, **change: Any) -> Sampler:
    config = SIDReasonerAlignmentConfig(**{"group_size": 3, "max_rationale_tokens": 6, **change})
    trie = PrefixTrie.from_codes(backbone.vocab.codes)
    return Sampler(
        backbone, trie, lambda point: think_text(backbone, point.history, max_items=4), config, max_tokens=200
    )


@pytest.fixture(scope="module")
def points(world: Any) -> list[Point]:
    return points_of(histories(world))[:4]


def drawn(sampler: Sampler, points: list[Point], seed: int = 0) -> Samples:
    torch.manual_seed(seed)
    return sampler.samples(points)


def by_definition(backbone: Backbone, samples: Samples, sampler: Sampler, temperature: float) -> torch.Tensor:
    """Every action by a forward pass over its row alone."""
    found = torch.zeros(samples.tokens.shape)
    for row, tokens in enumerate(samples.tokens):
        with torch.no_grad():
            logits = backbone.model(input_ids=tokens[None]).logits[0] / temperature
        for pos in samples.words[row].nonzero()[:, 0].tolist():
            found[row, pos] = logits[pos - 1].log_softmax(-1)[tokens[pos]]
        prefix: tuple[int, ...] = ()
        for level, pos in enumerate(samples.place[row].tolist()):
            if pos == NOWHERE:
                continue
            width = len(prefix)
            codes = sorted({int(own[width]) for own in backbone.vocab.codes if tuple(own[:width]) == prefix})
            code = int(samples.answers[row, level])
            among = logits[pos - 1][sampler.level_tokens[level][codes]].log_softmax(-1)
            found[row, pos] = among[codes.index(code)]
            prefix = (*prefix, code)
    return found


@pytest.mark.parametrize("rollout", ["free", "trace_then_trie"])
def test_log_probabilities_are_the_whole_models(backbone: Backbone, points: list[Point], rollout: str) -> None:
    sampler = sampler_of(backbone, rollout=rollout)
    samples = drawn(sampler, points)
    found = action_log_probs(backbone.model, sampler.level_tokens, samples, 0.7)

    torch.testing.assert_close(found.detach(), by_definition(backbone, samples, sampler, 0.7), atol=1e-4, rtol=1e-4)
    assert not found[~samples.actions].any()


def test_a_part_of_the_rows_has_the_same_log_probabilities(backbone: Backbone, points: list[Point]) -> None:
    sampler = sampler_of(backbone)
    samples = drawn(sampler, points)
    whole = action_log_probs(backbone.model, sampler.level_tokens, samples, 1.0)
    part = samples.part(4, 7)
    own = action_log_probs(backbone.model, sampler.level_tokens, part, 1.0)

    torch.testing.assert_close(own, whole[4:7, : own.shape[1]], atol=1e-5, rtol=1e-5)
    assert not samples.actions[4:7, own.shape[1] :].any()


def test_under_the_trie_every_answer_is_an_item(backbone: Backbone, points: list[Point]) -> None:
    """Its tokens stand where they are said to stand, behind the blank line that closes a rationale."""
    samples = drawn(sampler_of(backbone, group_size=8), points)
    items = {tuple(codes) for codes in backbone.vocab.codes.tolist()}

    assert {tuple(answer) for answer in samples.answers.tolist()} <= items
    for row, answer in enumerate(samples.answers.tolist()):
        first = int(samples.place[row, 0])
        names = [backbone.vocab.token(level, code) for level, code in enumerate(answer)]
        assert samples.tokens[row, first : first + 3].tolist() == backbone.token_ids(names)
        text = backbone.tokenizer.decode(samples.tokens[row, :first])
        assert text.endswith("</think>\n\n")
        assert samples.rationale_tokens[row] == samples.words[row].sum() - samples.ended[row].int()


def test_items_are_drawn_by_their_odds(backbone: Backbone) -> None:
    """4,096 draws after one rationale: the first code's frequencies are the model's, within four deviations."""
    sampler = sampler_of(backbone)
    text = encode(backbone.tokenizer, "x\n</think>\n\n")
    torch.manual_seed(1)
    answers, _ = _Policy(backbone, sampler.level_tokens).items([text] * 4096, sampler.trie, 1.0)
    counts = Counter(answers[:, 0].tolist())
    with torch.no_grad():
        logits = backbone.model(input_ids=torch.tensor([text])).logits[0, -1]
    real = sorted({int(codes[0]) for codes in backbone.vocab.codes})
    odds = logits[sampler.level_tokens[0][real]].softmax(-1).tolist()

    assert set(counts) <= set(real)
    for code, share in zip(real, odds, strict=True):
        assert abs(counts[code] / 4096 - share) < 4 * (share * (1 - share) / 4096) ** 0.5


def test_the_same_state_draws_the_same_samples_however_many_are_in_memory(
    backbone: Backbone, points: list[Point]
) -> None:
    first, again = drawn(sampler_of(backbone), points), drawn(sampler_of(backbone), points)
    other = drawn(sampler_of(backbone), points, seed=1)

    assert first.tokens.equal(again.tokens)
    assert not (first.tokens.shape == other.tokens.shape and first.tokens.equal(other.tokens))


def test_a_free_answer_is_its_first_words_of_semantic_ids(backbone: Backbone) -> None:
    """Other words between them do not matter, words of another level are wrong, too few are no answer."""
    sampler = sampler_of(backbone, rollout="free")
    a, b, c = (backbone.token_ids(backbone.vocab.level_tokens(level)) for level in range(3))
    space = encode(backbone.tokenizer, "\n\n")

    assert sampler._named([*space, a[1], b[2], c[3], a[4]]) == [1, 2, 3]
    assert sampler._named([a[1], *space, c[2], c[3]]) == [1, WRONG, 3]
    assert sampler._named([*space, a[1], b[2]]) == [PAD, PAD, PAD]


def test_what_a_free_sample_chose_begins_behind_its_prompt(backbone: Backbone, points: list[Point]) -> None:
    sampler = sampler_of(backbone, rollout="free")
    samples = drawn(sampler, points)
    prompt = len(encode(backbone.tokenizer, f"{sampler.ask(points[0])}<think>\n"))

    assert samples.words[0].nonzero()[0].item() == prompt
    assert (samples.place == NOWHERE).all()
    assert samples.words.sum(dim=1).max() <= 6 + 2 + 3 + len(encode(backbone.tokenizer, "\n\n"))
