"""The benchmark of the trie runs whole at small sizes; its peers allow what the catalogue does, or get no time."""

import numpy as np
import pytest
import torch

from benchmarks import trie, trie_peers
from benchmarks.trie import LEVELS, QUICK, Sizes, World, catalogue


def test_every_row_is_measured_and_none_is_judged_at_quick_sizes() -> None:
    """Eight rows a size, four beside peers, three exponents and two checks of every item, with the schema's keys."""
    rows = trie.run(quick=True)["results"]

    assert len(rows) == len({row["name"] for row in rows}) == 3 * 10 + 4 + 3 + 2
    assert all({"name", "ours", "peer", "ratio", "goal", "met", "spread"} <= row.keys() for row in rows)
    assert all(row["met"] is None and row["goal"] is None for row in rows)
    assert all(row["ours"] is not None for row in rows)


def test_a_full_run_judges_what_the_goals_name() -> None:
    """At full size goals stand; at quick size the same goals are none."""
    assert Sizes().goal(8.0) == 8.0
    assert QUICK.goal(8.0) is None


def test_a_catalogue_has_distinct_items_and_uses_its_first_codes_most() -> None:
    """Of 4096 semantic IDs 500, the same every time; the first code has more than twice its even share."""
    codes = catalogue(500, 16)

    assert codes.shape == (500, LEVELS)
    assert len(np.unique(codes, axis=0)) == 500
    assert np.array_equal(codes, catalogue(500, 16))
    assert ((codes == 0).mean(axis=0) > 2 / 16).all()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_peers_allow_what_the_catalogue_does(length: int) -> None:
    """Brute force over the items, after no, one and two codes."""
    codes = torch.from_numpy(catalogue(60, 6)).long()
    prefixes = codes[:9, :length]
    expected = torch.zeros(9, 6, dtype=torch.bool)
    for row, prefix in enumerate(prefixes.tolist()):
        for item in codes.tolist():
            if item[:length] == prefix:
                expected[row, item[length]] = True

    walked = trie_peers.walked(trie_peers.dict_trie(codes), prefixes)
    assert [sorted(codes) for codes in walked] == [row.nonzero().flatten().tolist() for row in expected]
    assert torch.equal(trie_peers.searched(trie_peers.sorted_keys(codes, 6), prefixes, 6, LEVELS), expected)
    assert torch.equal(trie_peers.compared(codes, prefixes, 6), expected)


def test_an_unequal_mask_is_never_timed() -> None:
    """A peer that allows one code less gets no time, and the row says so."""
    world = World.of(200, QUICK)
    allowed = torch.zeros(20, QUICK.codes, dtype=torch.bool)
    row = trie._beside(world, 1, 1, "unequal", lambda: allowed, 100.0)

    assert (row.ours, row.peer, row.ratio) == (None, None, None)
    assert "the peer 0, not the same ones" in row.notes
