"""The benchmark of decoding runs whole at small sizes; equal output is what it says, and unequal output has no time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import decode
from benchmarks.decode import QUICK, Sizes, World, equal, flops_of
from benchmarks.hf_peers import Found, Vocabulary
from sidrec.errors import CheckFailedError


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(QUICK.shapes[0], QUICK.widths)


@pytest.mark.slow
def test_every_row_is_measured_and_none_is_judged_at_quick_sizes() -> None:
    """Each comparison has a ratio, so its output was equal."""
    rows = decode.run(quick=True)["results"]

    assert len(rows) == 2 * 2 + 2 + 2 * (2 + 1 + 2)
    assert all(row["met"] is None and row["goal"] is None for row in rows)
    assert all(row["ratio"] > 0 and "the same items" in row["notes"] for row in rows if row["peer"] is not None)


def test_a_full_run_judges_what_the_goals_name() -> None:
    assert Sizes().goal(10) == 10
    assert QUICK.goal(10) is None


@pytest.mark.parametrize("engine", ["decoder-only", "encoder-decoder"])
def test_an_engine_answers_as_its_peer(world: World, engine: str) -> None:
    """Two requests, beams pruned: Hugging Face's generate with the same weights finds the same items and scores."""
    histories = world.histories(2, 0)

    said = equal([world.ours(engine, histories)()], [world.peers[engine].search(world.prompt(histories), 4)])

    assert "the same items for 2 requests" in said


def test_another_item_or_another_score_is_not_equal() -> None:
    found = Found(torch.tensor([[1, 2]]), torch.tensor([[-1.0, -2.0]]))

    with pytest.raises(CheckFailedError, match="1 of 2 items are not the peer's"):
        equal([found], [replace(found, items=torch.tensor([[1, 3]]))])
    with pytest.raises(CheckFailedError, match=r"scores differ by 0\.01"):
        equal([found], [replace(found, log_probs=torch.tensor([[-1.0, -2.01]]))])
    assert "the same items" in equal([found], [Found(found.items.flip(1), found.log_probs.flip(1))])


def test_only_what_an_item_has_may_follow_a_prefix() -> None:
    """Items (0, 1) and (0, 3) of four codes a level: tokens 1, then 6 or 8."""
    vocabulary = Vocabulary(np.array([[0, 1], [0, 3]], dtype=np.int32), 4)

    assert vocabulary.allowed == {(): [1], (1,): [6, 8]}
    assert vocabulary.item_of == {(1, 6): 0, (1, 8): 1}


def test_products_are_counted_in_place_ones_and_attention_among_them() -> None:
    """By hand: 2 m k n for a product; for attention of one head two products of 5 x 5 positions and 4 numbers."""
    left, right, added = torch.randn(3, 4), torch.randn(4, 6), torch.randn(3, 6)
    heads = torch.randn(1, 1, 5, 4)

    with torch.inference_mode():
        assert flops_of(lambda: added.addmm_(left, right)) == 2 * 3 * 4 * 6
        attend = torch.nn.functional.scaled_dot_product_attention
        assert flops_of(lambda: attend(heads, heads, heads)) == 2 * 5 * 5 * 4 * 2


@pytest.mark.parametrize("engine", ["decoder-only", "encoder-decoder"])
def test_the_share_of_the_cache_is_that_of_the_tensors(world: World, engine: str) -> None:
    """One layer of width 16 in fp32, 9 tokens of history, 4 beams: bytes by hand on both sides."""
    row = decode._cache(world, QUICK, engine)
    position = 2 * 16 * 4
    # Prompt and two fed codes; T5's decoder feeds its start too, and the first position is kept to begin again.
    ours, theirs = {
        "decoder-only": ((9 + 4 * 2) * position, 4 * (9 + 2) * position),
        "encoder-decoder": ((9 + 3 + 4 * 3) * position, 4 * (9 + 3) * position),
    }[engine]

    assert row.ours == pytest.approx(ours / theirs)
