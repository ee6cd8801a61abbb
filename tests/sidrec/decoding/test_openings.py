"""What is closed by a shared rule and by requests of their own is what a walk over the catalogue finds closed."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.expansion import expand
from sidrec.decoding.openings import ItemRule, ItemRules, Openings, closed_by_tensors
from sidrec.decoding.trie import NONE, PrefixTrie
from tests.sidrec.decoding.catalogues import catalogues


def shut_nodes(
    trie: PrefixTrie, rule: ItemRule, seen: torch.Tensor, *, dense: torch.Tensor | Openings | None = None
) -> set:
    """Return (request, node) of all that is closed when every prefix is a hypothesis of every request."""
    shut = set()
    bias = torch.zeros(trie.num_nodes)
    openings = rule.without(seen) if dense is None else dense
    for depth in range(trie.num_levels):
        places = torch.arange(trie.num_places(depth), dtype=torch.int32).repeat(len(seen), 1)
        run = expand(trie, depth, places, bias)
        closed = run.closed(depth, places, openings)
        for number in [] if closed is None else closed.tolist():
            shut.add((int(run.candidates.row[number]) // places.shape[1], int(run.node[number])))
    return shut


@given(catalogues(), st.integers(0, 10_000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_item_by_item_is_what_the_bitmap_over_all_nodes_says(codes: np.ndarray, seed: int, shared: bool) -> None:
    """Repeats, padding and items that the shared rule blocks already, for three requests; the root is never asked."""
    trie = PrefixTrie.from_codes(codes)
    rng = np.random.default_rng(seed)
    taken_down = torch.from_numpy(rng.random(len(codes)) < (0.4 if shared else 0.0))
    seen = torch.from_numpy(rng.integers(-1, len(codes), (3, int(rng.integers(0, 40)))))
    blocked = taken_down.repeat(3, 1)
    for row, items in enumerate(seen.tolist()):
        blocked[row, [item for item in items if item != NONE]] = True

    expected = {
        (row, node)
        for row in range(3)
        for node in range(1, trie.num_nodes)
        if blocked[row, trie.leaf_order[trie.leaf_start[node] : trie.leaf_end[node]]].all()
    }

    rule = ItemRule.blocking(trie, taken_down)
    assert shut_nodes(trie, rule, seen) == expected
    leaf = trie.place.take(seen.flatten().clamp(min=0)).view(seen.shape).masked_fill(seen == NONE, len(codes)).int()
    tensors = Openings(rule.open_nodes, closed_by_tensors(trie, rule.open_before, leaf))
    assert shut_nodes(trie, rule, seen, dense=tensors) == expected
    assert shut_nodes(trie, rule, seen, dense=trie.allowed_nodes(blocked)) == expected


def test_nothing_blocked_is_no_rule() -> None:
    """No array is made, and a batch without exclusions has nothing to look up."""
    trie = PrefixTrie.from_codes(np.array([[0, 1], [1, 0]], dtype=np.int32))
    rule = ItemRule.blocking(trie, torch.zeros(2, dtype=torch.bool))
    openings = rule.without(torch.full((3, 2), NONE))

    assert (rule.open_nodes, rule.open_before) == (None, None)
    assert (openings.shared, openings.closed) == (None, (None, None))


def test_a_rule_is_made_anew_when_its_items_change_also_in_place() -> None:
    trie = PrefixTrie.from_codes(np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int32))
    rules = ItemRules(trie)
    blocked = torch.tensor([True, False, False])
    first = rules.blocking(blocked)
    assert rules.blocking(blocked.clone()) is first
    blocked[1] = True
    nobody = torch.empty(1, 0, dtype=torch.long)
    assert shut_nodes(trie, rules.blocking(blocked), nobody) == shut_nodes(
        trie, ItemRule.blocking(trie, torch.tensor([True, True, False])), nobody
    )
    assert rules.blocking(blocked) is not first
