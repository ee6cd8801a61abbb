"""The compiled step keeps what the tensor step keeps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding import expansion, loops, native
from sidrec.decoding.openings import ItemRule
from sidrec.decoding.trie import PrefixTrie
from tests.sidrec.decoding.catalogues import catalogues


@given(
    codes=catalogues(), seed=st.integers(0, 10_000), width=st.integers(1, 12), beams=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]), excluding=st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_picks_are_those_of_tensors(
    codes: np.ndarray, seed: int, width: int, beams: int, dtype: torch.dtype, excluding: bool
) -> None:
    """At every depth: hypotheses that are dead, items that ended above, a takedown, and histories that are excluded."""
    trie = PrefixTrie.from_codes(codes)
    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 4))
    bias = torch.from_numpy(rng.normal(size=trie.num_nodes)).to(dtype)
    openings = None
    if excluding:
        taken_down = torch.from_numpy(rng.random(len(codes)) < rng.choice([0.0, 0.3]))
        seen = torch.from_numpy(rng.integers(-1, len(codes), (batch, int(rng.integers(0, 9)))))
        openings = ItemRule.blocking(trie, taken_down).without(seen)
    for depth in range(trie.num_levels):
        places = torch.from_numpy(rng.integers(0, trie.num_places(depth) + 1, (batch, beams))).int()
        scores = torch.from_numpy(rng.normal(size=places.shape)).to(dtype)
        scores = scores.masked_fill(places == trie.num_places(depth), -torch.inf)
        logits = torch.from_numpy(3 * rng.normal(size=(batch, beams, int(codes.max()) + 1))).to(dtype)
        asked = (trie, depth, places, scores, logits, bias)

        ours = native.picks(*asked, width=width, allowed=openings)
        theirs = expansion.picks(*asked, width=width, allowed=openings)

        kept = theirs.scores > -torch.inf
        assert ours.scores.shape == theirs.scores.shape
        torch.testing.assert_close(ours.scores, theirs.scores)
        assert torch.equal(ours.places, theirs.places)
        assert torch.equal(ours.row[kept], theirs.row[kept])
        assert torch.equal(ours.codes[kept], theirs.codes[kept])


def test_equal_scores_go_to_the_first_hypothesis_and_the_first_code() -> None:
    """Ties are broken by place, whatever the width: an answer does not depend on how many were asked for."""
    trie = PrefixTrie.from_codes(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32))
    places, scores = torch.tensor([[1, 0]], dtype=torch.int32), torch.zeros(1, 2)
    equal = torch.zeros(1, 2, 2)

    for width in (1, 2, 3, 4):
        kept = native.picks(trie, 1, places, scores, equal, torch.zeros(trie.num_nodes), width=width, allowed=None)
        assert kept.places[0].tolist() == [2, 3, 0, 1][:width]


def test_where_nothing_follows_nothing_is_kept() -> None:
    trie = PrefixTrie.from_codes(np.array([[0, 0], [1, 0]], dtype=np.int32))
    past = trie.num_places(1)
    places, scores = torch.tensor([[past]], dtype=torch.int32), torch.full((1, 1), -torch.inf)

    kept = native.picks(
        trie, 1, places, scores, torch.zeros(1, 1, 2), torch.zeros(trie.num_nodes), width=3, allowed=None
    )

    assert kept.scores.shape == (1, 0)


@pytest.mark.parametrize(("dtype", "runs"), [(torch.float32, True), (torch.bfloat16, False)])
def test_it_takes_the_numbers_that_it_knows(dtype: torch.dtype, runs: bool) -> None:
    assert native.runs_on(torch.zeros(1, 1, 2, dtype=dtype), None) is runs
    assert not native.runs_on(torch.zeros(1, 1, 2), torch.ones(1, 3, dtype=torch.bool))


def test_a_tree_that_cannot_be_written_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba refuses to cache there when the function is decorated, long before the first request."""
    njit = loops.njit

    def refusing(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(loops, "njit", refusing)

    assert loops.compiled(lambda value: value + 1)(2) == 3
