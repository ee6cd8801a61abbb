"""The generator as the paper has it: thinking tokens fed back, gradients through them, an exact distribution."""

from typing import Any

import numpy as np
import pytest
import torch

from sidrec.decoding.beam import beam_search, score_items
from sidrec.decoding.exhaustive import exhaustive_log_probs
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.batches import encoder_input
from sidrec.systems.history import History, code_table, has_code
from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.model import Decoding, S2GRModel
from sidrec.systems.s2gr.steps import GeneratorSteps

HISTORIES = [
    History(np.array([3, 9, 40]), np.array([0, 2, 3]), np.array([10, 20])),
    History(np.array([1, 2, 3, 4, 5, 6]), np.array([0, 1, 2, 4, 6]), np.array([1, 2, 3, 4])),
]


def model_of(world: Any, **change: Any) -> S2GRModel:
    torch.manual_seed(0)
    config = S2GRModelConfig(dim=16, ff_dim=32, dropout=0.0).model_copy(update=change)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    model = S2GRModel(config, codebook_sizes=[8, 8, 8], code_dim=4, num_nodes=trie.num_nodes).eval()
    with torch.no_grad():
        for table in model.code_out:
            table.normal_()
        model.prefix_bias.normal_()
    return model


def memory_of(model: S2GRModel, world: Any) -> Any:
    flatten = 3 if model.config.flatten else 0
    inputs = encoder_input(HISTORIES, flatten=flatten)
    return model.encode(inputs, code_table(world.catalog), has_code(world.catalog).float())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"thinking": "none"},
        {"thinking": "ahead"},
        {"thinking": "pause"},
        {"flatten": True},
        {"encoder": "full"},
        {"tie_codes": True},
        {"head_dim": 12},
    ],
)
@torch.no_grad()
def test_the_search_is_the_exhaustive_distribution(world: Any, change: dict[str, Any]) -> None:
    """At full width: every item, at its exact log-probability; all of them sum to one."""
    model = model_of(world, **change)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    steps = GeneratorSteps(model, memory_of(model, world))
    ancestors = trie.ancestors
    bias = {
        tuple(row[: level + 1]): float(model.prefix_bias[ancestors[item, level]])
        for item, row in enumerate(world.catalog.codes.tolist())
        for level in range(3)
    }
    expected = exhaustive_log_probs(steps, world.catalog.codes, bias)

    beams = beam_search(steps, trie, model.prefix_bias, beam_width=64)
    everything = torch.arange(64).expand(2, -1)

    torch.testing.assert_close(expected.exp().sum(dim=1), torch.ones(2))
    torch.testing.assert_close(beams.log_probs, expected.gather(1, beams.items), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(score_items(steps, trie, model.prefix_bias, everything), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_thinking_tokens_are_the_state_plus_the_level_position_fed_back(world: Any) -> None:
    """Feeding BOS, t_1, s_1, t_2 by hand gives the logits of the second code."""
    model = model_of(world)
    memory = memory_of(model, world)
    limit = memory.rank.amax(dim=1, keepdim=True)
    by_hand = Decoding(model, memory, limit)
    first = by_hand.feed(by_hand.begin()) + model.level_position[0]
    by_hand.feed(first)
    second = by_hand.feed(model.code_in[0][torch.tensor([[5], [5]])]) + model.level_position[1]
    expected = by_hand.feed(second) @ model.code_out[1].T

    decoding = Decoding(model, memory, limit)
    _, tokens = decoding.next_logits(0, decoding.begin())
    logits, next_tokens = decoding.next_logits(1, model.code_in[0][torch.tensor([[5], [5]])])

    torch.testing.assert_close(tokens[0], first)
    torch.testing.assert_close(next_tokens[1], second)
    torch.testing.assert_close(logits, expected)


def test_the_last_codes_loss_reaches_the_first_thinking_token(world: Any) -> None:
    """Caches are live: nothing is detached between the passes."""
    model = model_of(world)
    memory = memory_of(model, world)
    decoding = Decoding(model, memory, memory.rank.amax(dim=1, keepdim=True))
    decoding.next_logits(0, decoding.begin())
    code = torch.tensor([[1], [2]])
    decoding.next_logits(1, model.code_in[0][code])
    logits, _ = decoding.next_logits(2, model.code_in[1][code])
    logits.logsumexp(dim=-1).sum().backward()

    assert float(model.level_position.grad[0].abs().sum()) > 0
    assert float(model.bos.grad.abs().sum()) > 0


@torch.no_grad()
def test_a_point_sees_no_later_basket(world: Any) -> None:
    """Training all positions of a user at once is the same as encoding each prefix of the history alone."""
    model = model_of(world)
    codes, present = code_table(world.catalog), has_code(world.catalog).float()
    whole = model.encode(encoder_input(HISTORIES[1:]), codes, present)
    decoding = Decoding(model, whole, torch.arange(4)[None])
    together, _ = decoding.next_logits(0, decoding.begin())

    for newest in range(4):
        cut = History(HISTORIES[1].items[: HISTORIES[1].start[newest + 1]], HISTORIES[1].start[: newest + 2],
                      HISTORIES[1].days[: newest + 1])  # fmt: skip
        alone = Decoding(model, model.encode(encoder_input([cut]), codes, present), torch.tensor([[newest]]))
        logits, _ = alone.next_logits(0, alone.begin())
        torch.testing.assert_close(together[0, newest], logits[0, 0])


@pytest.mark.parametrize("flatten", [False, True])
@torch.no_grad()
def test_neighbours_and_padding_change_nothing(world: Any, flatten: bool) -> None:
    """A user alone and beside one with a longer history has the same distribution."""
    model = model_of(world, flatten=flatten)
    codes, present = code_table(world.catalog), has_code(world.catalog).float()
    trie = PrefixTrie.from_codes(world.catalog.codes)
    everything = torch.arange(64)[None]
    batched = score_items(
        GeneratorSteps(model, memory_of(model, world)), trie, model.prefix_bias, everything.expand(2, -1)
    )
    inputs = encoder_input(HISTORIES[:1], flatten=3 if flatten else 0)
    alone = score_items(
        GeneratorSteps(model, model.encode(inputs, codes, present)), trie, model.prefix_bias, everything
    )

    torch.testing.assert_close(batched[:1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_within_a_basket_means_nothing(world: Any) -> None:
    """An invoice's lines have no order, in either layout."""
    for flatten in (0, 3):
        model = model_of(world, flatten=bool(flatten))
        codes, present = code_table(world.catalog), has_code(world.catalog).float()
        trie = PrefixTrie.from_codes(world.catalog.codes)
        scores = []
        for items in ([7, 8, 9, 20], [9, 7, 8, 20]):
            history = History(np.array(items), np.array([0, 3, 4]), np.array([1, 2]))
            memory = model.encode(encoder_input([history], flatten=flatten), codes, present)
            scores.append(score_items(GeneratorSteps(model, memory), trie, model.prefix_bias, torch.arange(64)[None]))

        torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)
