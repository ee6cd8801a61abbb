"""The generator's parts, each against its definition."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from sidrec.systems.batches import encoder_input
from sidrec.systems.history import History
from sidrec.systems.reg4rec.model import Memory, Paths, Reg4RecModel
from tests.sidrec.systems.reg4rec.world import model_of, tables_of

ONE = History(np.array([3, 9, 40]), np.array([0, 2, 3]), np.array([10, 20]))
OTHER = History(np.array([5, 6, 7, 5]), np.array([0, 1, 3, 4]), np.array([11, 41, 50]))


def memory_of(model: Reg4RecModel, codes: torch.Tensor, *histories: History, flatten: int = 0) -> Memory:
    return model.encode(encoder_input(histories, flatten=flatten), codes)


def full_pass(model: Reg4RecModel, memory: Memory, limit: int, tokens: list[tuple[int, int]]) -> torch.Tensor:
    """Return the state after the last token of one user's path: causal attention over the whole path, no cache."""
    inputs = torch.stack([model.bos, *(model.codes[slot, code] + model.slot[slot] for slot, code in tokens)])[None]
    hidden, width = inputs, inputs.shape[1]
    hide = torch.full((width, width), -torch.inf).triu(1)[None, None]
    bias = model.cross_bias(torch.tensor([[limit]]), memory.rank)
    for layer, block in enumerate(model.decoder):
        normed = block.self_norm(hidden)
        hidden = hidden + block.self_attention(normed, block.self_attention.remember(normed), hide)
        hidden = hidden + block.cross_attention(block.cross_norm(hidden), memory.layers[layer], bias)
        hidden = hidden + block.ff(block.ff_norm(hidden))
    return model.decoder_norm(hidden)[0, -1]


@pytest.mark.parametrize("flatten", [0, 3])
def test_a_path_token_by_token_is_a_full_pass_over_it(world: Any, flatten: int) -> None:
    """With caches, forks and changed rows in between, and orders that differ by row."""
    model, codes = model_of(max_positions=9), tables_of(world).codes
    memory = memory_of(model, codes, OTHER, flatten=flatten)
    first, second = [[(2, 1)], [(0, 5)], [(2, 1)]], [[(1, 7)], [(2, 2)], [(0, 3)]]
    paths = Paths(model, memory, torch.tensor([[2]]))
    states = [paths.begin()[0, 0]]
    paths.fork(2)
    paths.extend(torch.tensor([[2, 0]]), torch.tensor([[1, 5]]))
    paths.follow(torch.tensor([[0, 1, 0]]))
    states += list(paths.extend(torch.tensor([[1, 2, 0]]), torch.tensor([[7, 2, 3]]))[0])
    expected = [full_pass(model, memory, 2, [])]
    expected += [full_pass(model, memory, 2, [*a, *b]) for a, b in zip(first, second, strict=True)]

    torch.testing.assert_close(torch.stack(states), torch.stack(expected))


def test_a_user_decodes_as_if_alone(world: Any) -> None:
    """Padding and the neighbours of a batch change nothing."""
    model, codes = model_of(), tables_of(world).codes
    both = Paths(model, memory_of(model, codes, ONE, OTHER), torch.tensor([[1], [2]])).begin()
    for user, (history, limit) in enumerate([(ONE, 1), (OTHER, 2)]):
        alone = Paths(model, memory_of(model, codes, history), torch.tensor([[limit]])).begin()

        torch.testing.assert_close(both[user], alone[0])


def test_a_row_sees_no_basket_after_its_limit(world: Any) -> None:
    """What a user bought later does not reach a point before it."""
    model, codes = model_of(), tables_of(world).codes
    other = History(np.array([5, 60, 61, 62]), OTHER.start, OTHER.days)
    points = [Paths(model, memory_of(model, codes, history), torch.tensor([[0]])).begin() for history in (OTHER, other)]

    torch.testing.assert_close(points[0], points[1])


def test_known_item_vectors_are_those_of_the_batch(world: Any) -> None:
    model, codes = model_of(), tables_of(world).codes
    inputs = encoder_input([ONE, OTHER])
    own, given = model.encode(inputs, codes), model.encode(inputs, codes, model.item_vectors(codes))

    torch.testing.assert_close(own.layers[0].keys, given.layers[0].keys)


def test_log_probs_are_softmaxes_of_cosines_and_the_prior() -> None:
    """One slot and one code at a time."""
    model = model_of()
    hidden, prior = torch.randn(2, 3, 16), torch.randn(2, 3, 3, 8)
    found = model.slot_log_probs(hidden, prior, 1)
    for slot in range(3):
        tower = hidden @ model.towers[slot]
        cosine = torch.stack([cosine_similarity(tower, code, dim=-1) for code in model.codes[slot]], dim=-1)
        expected = (cosine / 0.1 + 0.5 * prior[:, :, slot]).log_softmax(dim=-1)

        torch.testing.assert_close(found[:, :, slot], expected, atol=1e-5, rtol=1e-4)
