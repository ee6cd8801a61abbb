"""Beam search against the exhaustive oracle, on a decoder that is a table of random logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.catalog import disambiguate
from sidrec.decoding.beam import beam_search, score_items
from sidrec.decoding.exhaustive import exhaustive_log_probs
from sidrec.decoding.openings import ItemRule
from sidrec.decoding.trie import NONE, PrefixTrie

CODES_PER_LEVEL = 8


class TableSteps:
    """Logits that depend on the user and the whole prefix: a hash of both seeds them."""

    def __init__(self, batch: int, seed: int) -> None:
        self.batch, self.seed = batch, seed
        self.prefixes: list[list[tuple[int, ...]]] = []

    def begin(self) -> torch.Tensor:
        self.prefixes = [[()] for _ in range(self.batch)]
        return self._logits()

    def extend(self, origin: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        self.prefixes = [
            [(*self.prefixes[row][source], code) for source, code in zip(sources, added, strict=True)]
            for row, (sources, added) in enumerate(zip(origin.tolist(), codes.tolist(), strict=True))
        ]
        return self._logits()

    def _logits(self) -> torch.Tensor:
        def one(row: int, prefix: tuple[int, ...]) -> torch.Tensor:
            generator = torch.Generator().manual_seed(hash((self.seed, row, prefix)) & 0xFFFFFFFF)
            return 2 * torch.randn(CODES_PER_LEVEL, generator=generator, dtype=torch.float64)

        return torch.stack(
            [torch.stack([one(row, prefix) for prefix in prefixes]) for row, prefixes in enumerate(self.prefixes)]
        )


class World:
    """A random catalogue, with colliding items if asked so, and its exhaustive answer."""

    def __init__(self, seed: int, *, num_items: int = 40, collisions: bool = False, batch: int = 3) -> None:
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 3 if collisions else CODES_PER_LEVEL, (num_items, 3)).astype(np.int32)
        codes = codes if collisions else np.unique(codes, axis=0)
        self.codes = disambiguate(codes)
        # An extra code is at most the number of items that collide, so it must fit the table.
        self.codes = self.codes[self.codes[:, -1] < CODES_PER_LEVEL]
        self.trie = PrefixTrie.from_codes(self.codes)
        self.bias = torch.randn(self.trie.num_nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.steps = TableSteps(batch, seed)
        by_prefix = {}
        ancestors = self.trie.ancestors
        for item, row in enumerate(self.codes.tolist()):
            for level in range(len(row)):
                by_prefix[tuple(row[: level + 1])] = float(self.bias[ancestors[item, level]])
        self.expected = exhaustive_log_probs(self.steps, self.codes, by_prefix)


@pytest.mark.parametrize("collisions", [False, True])
def test_the_oracle_is_a_distribution(collisions: bool) -> None:
    """Probabilities of all items sum to one for every user, extra codes or not."""
    world = World(0, collisions=collisions)

    torch.testing.assert_close(world.expected.exp().sum(dim=1), torch.ones(3, dtype=torch.float64))


@given(seed=st.integers(0, 10_000), collisions=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_full_width_beam_is_exhaustive_scoring(seed: int, collisions: bool) -> None:
    """With room for every prefix the search returns every item at its exact log-probability, best first."""
    world = World(seed, collisions=collisions)

    beams = beam_search(world.steps, world.trie, world.bias, beam_width=200)

    for row in range(3):
        found = beams.items[row][beams.items[row] != NONE]
        assert sorted(found.tolist()) == list(range(len(world.codes)))
        torch.testing.assert_close(beams.log_probs[row, : len(found)], world.expected[row, found])
    assert (beams.log_probs.diff(dim=1) <= 0)[:, : len(world.codes) - 1].all()


@pytest.mark.parametrize("collisions", [False, True])
def test_a_narrow_beam_gives_real_items_at_exact_scores(collisions: bool) -> None:
    """A narrow search may miss items; what it finds is in the catalogue, distinct, and scored exactly."""
    world = World(3, collisions=collisions)

    beams = beam_search(world.steps, world.trie, world.bias, beam_width=5)

    assert beams.items.shape == (3, 5)
    for row in range(3):
        assert len(set(beams.items[row].tolist())) == 5
        torch.testing.assert_close(beams.log_probs[row], world.expected[row, beams.items[row]])


@pytest.mark.parametrize("collisions", [False, True])
def test_blocked_items_leave_before_the_search_and_keep_their_probability(collisions: bool) -> None:
    """The rest is searched at full width; no probability moves to the items that stay."""
    world = World(4, collisions=collisions)
    num_items = len(world.codes)
    blocked = torch.rand(3, num_items, generator=torch.Generator().manual_seed(1)) < 0.6

    beams = beam_search(world.steps, world.trie, world.bias, beam_width=200, allowed=world.trie.allowed_nodes(blocked))

    for row in range(3):
        found = beams.items[row][beams.items[row] != NONE]
        assert sorted(found.tolist()) == torch.nonzero(~blocked[row]).flatten().tolist()
        torch.testing.assert_close(beams.log_probs[row, : len(found)], world.expected[row, found])


def test_blocking_makes_room_in_a_narrow_beam() -> None:
    """With the best items blocked a narrow beam is filled by the next ones, not cut short."""
    world = World(5)
    blocked = torch.zeros(3, len(world.codes), dtype=torch.bool)
    for row in range(3):
        blocked[row, world.expected[row].topk(10).indices] = True

    beams = beam_search(world.steps, world.trie, world.bias, beam_width=8, allowed=world.trie.allowed_nodes(blocked))

    assert (beams.items != NONE).all()
    assert not blocked.gather(1, beams.items).any()


@given(seed=st.integers(0, 10_000), collisions=st.booleans())
@settings(max_examples=15, deadline=None)
def test_chosen_items_are_scored_exactly(seed: int, collisions: bool) -> None:
    """Ragged lists with padding anywhere and repeats: the oracle's numbers, -inf for padding."""
    world = World(seed, collisions=collisions)
    rng = np.random.default_rng(seed)
    chosen = torch.from_numpy(rng.integers(-1, len(world.codes), (3, 9)))

    scores = score_items(world.steps, world.trie, world.bias, chosen)

    expected = world.expected.gather(1, chosen.clamp(min=0)).masked_fill(chosen == NONE, -torch.inf)
    torch.testing.assert_close(scores, expected)


def test_no_chosen_items_is_no_scores() -> None:
    """A batch whose histories are all empty."""
    world = World(6)

    assert score_items(world.steps, world.trie, world.bias, torch.zeros(3, 0, dtype=torch.long)).shape == (3, 0)


@given(seed=st.integers(0, 10_000), collisions=st.booleans(), width=st.sampled_from([4, 200]))
@settings(max_examples=20, deadline=None)
def test_exclusions_item_by_item_search_as_the_bitmap_does(seed: int, collisions: bool, width: int) -> None:
    """A takedown for all or none, and a history for each request: the same items at the same scores."""
    world = World(seed, collisions=collisions)
    rng = np.random.default_rng(seed)
    taken_down = torch.from_numpy(rng.random(len(world.codes)) < rng.choice([0.0, 0.3]))
    seen = torch.from_numpy(rng.integers(-1, len(world.codes), (3, 12)))
    blocked = taken_down.repeat(3, 1)
    for row, items in enumerate(seen):
        blocked[row, items[items != NONE]] = True
    openings = ItemRule.blocking(world.trie, taken_down).without(seen)

    sparse = beam_search(world.steps, world.trie, world.bias, beam_width=width, allowed=openings)
    dense = beam_search(
        world.steps, world.trie, world.bias, beam_width=width, allowed=world.trie.allowed_nodes(blocked)
    )

    assert torch.equal(sparse.items, dense.items)
    torch.testing.assert_close(sparse.log_probs, dense.log_probs)
    assert not blocked.gather(1, sparse.items.clamp(min=0))[sparse.items != NONE].any()


def test_a_catalogue_that_is_blocked_whole_has_no_answer() -> None:
    """No item, and no step of the decoder for hypotheses that cannot be."""
    world = World(7, collisions=True)
    everything = ItemRule.blocking(world.trie, torch.ones(len(world.codes), dtype=torch.bool))

    beams = beam_search(
        world.steps, world.trie, world.bias, beam_width=5, allowed=everything.without(torch.zeros(3, 0).long())
    )

    assert (beams.items == NONE).all()
    assert (beams.log_probs == -torch.inf).all()
