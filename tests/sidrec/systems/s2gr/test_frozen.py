"""The frozen generator against the model it was frozen from, and against exhaustive scoring by that model."""

from typing import Any

import pytest
import torch

from sidrec.decoding.beam import beam_search, score_items
from sidrec.decoding.exhaustive import exhaustive_log_probs
from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.batches import encoder_input
from sidrec.systems.history import code_table, has_code
from sidrec.systems.s2gr.frozen import FrozenGenerator, FrozenSteps
from sidrec.systems.s2gr.model import S2GRModel
from sidrec.systems.s2gr.steps import GeneratorSteps
from tests.sidrec.systems.s2gr.test_model import HISTORIES, memory_of, model_of

KINDS = ["stepwise", "ahead", "pause", "none"]
CHANGES: list[dict[str, Any]] = [
    *({"thinking": kind} for kind in KINDS),
    {"flatten": True, "thinking": "none"},
    {"encoder": "full"},
    {"tie_codes": True},
    {"head_dim": 12},
]


def shaken(world: Any, **change: Any) -> S2GRModel:
    """Return a model none of whose norms or distance biases is the identity."""
    model = model_of(world, **change)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias.table" in name:
                weight.add_(0.5 * torch.randn(weight.shape))
    return model


def frozen_steps(model: S2GRModel, world: Any, rows: slice = slice(None)) -> FrozenSteps:
    generator = FrozenGenerator(model)
    inputs = encoder_input(HISTORIES[rows], flatten=3 if model.config.flatten else 0)
    return FrozenSteps(generator, generator.encode(inputs, code_table(world.catalog), has_code(world.catalog).float()))


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_a_search_is_exhaustive_scoring_by_the_model(world: Any, change: dict[str, Any]) -> None:
    """Full width, every kind of thinking and both layouts: the frozen search has the plain decoder's numbers."""
    model = shaken(world, **change)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    ancestors = trie.ancestors
    bias = {
        tuple(row[: level + 1]): float(model.prefix_bias[ancestors[item, level]])
        for item, row in enumerate(world.catalog.codes.tolist())
        for level in range(3)
    }
    expected = exhaustive_log_probs(GeneratorSteps(model, memory_of(model, world)), world.catalog.codes, bias)
    steps = frozen_steps(model, world)

    beams = beam_search(steps, trie, model.prefix_bias, beam_width=64)
    scores = score_items(steps, trie, model.prefix_bias, torch.arange(64).expand(2, -1))

    torch.testing.assert_close(beams.log_probs, expected.gather(1, beams.items), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("thinking", KINDS)
@torch.no_grad()
def test_a_narrow_search_is_that_of_the_model(world: Any, thinking: str) -> None:
    """Where beams are pruned and reordered: the same items in the same order."""
    model = shaken(world, thinking=thinking)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    plain = beam_search(GeneratorSteps(model, memory_of(model, world)), trie, model.prefix_bias, beam_width=5)

    beams = beam_search(frozen_steps(model, world), trie, model.prefix_bias, beam_width=5)

    assert torch.equal(beams.items, plain.items)
    torch.testing.assert_close(beams.log_probs, plain.log_probs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("thinking", KINDS)
@torch.no_grad()
def test_a_search_begins_again_where_it_began(world: Any, thinking: str) -> None:
    """Two searches by one decoder agree to the bit, though another ran between them."""
    trie, steps = PrefixTrie.from_codes(world.catalog.codes), frozen_steps(shaken(world, thinking=thinking), world)
    bias = torch.zeros(trie.num_nodes)
    first = beam_search(steps, trie, bias, beam_width=7)
    score_items(steps, trie, bias, torch.arange(64).expand(2, -1))

    again = beam_search(steps, trie, bias, beam_width=7)

    assert torch.equal(first.items, again.items)
    assert torch.equal(first.log_probs, again.log_probs)


@torch.no_grad()
def test_no_thinking_feeds_a_position_a_code(world: Any) -> None:
    """L positions without thinking, 2L with a thought before each code: caches have no room for more."""
    lengths = {}
    for thinking in KINDS:
        steps = frozen_steps(shaken(world, thinking=thinking), world)
        codes = torch.zeros(2, 1, dtype=torch.long)
        for _ in range(2):
            steps.extend(codes, codes)
        lengths[thinking] = (steps._rows.past.length, steps._rows.past.block.shape[2])

    assert lengths == {"none": (3, 3), "stepwise": (6, 6), "ahead": (6, 6), "pause": (6, 6)}


@torch.no_grad()
def test_a_neighbour_with_a_longer_history_changes_nothing(world: Any) -> None:
    model = shaken(world, flatten=True)
    alone = frozen_steps(model, world, slice(0, 1)).begin()

    torch.testing.assert_close(frozen_steps(model, world).begin()[:1], alone, atol=1e-5, rtol=1e-5)
