"""The trie accepts exactly the catalogue."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from sidrec.data.catalog import PAD
from sidrec.decoding.trie import NONE, ROOT, PrefixTrie, child_log_probs

CODES = np.array([[1, 2, 0, PAD], [0, 2, 1, 0], [0, 2, 1, 1], [0, 0, 5, PAD], [1, 2, 3, PAD]], dtype=np.int32)


def random_codes(seed: int, num_items: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    every = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return rng.permutation(every)[:num_items].astype(np.int32)


def paths(trie: PrefixTrie, node: int = ROOT, prefix: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
    """Every way from the root to an item, walked child by child."""
    found = {} if trie.item[node] == NONE else {prefix: int(trie.item[node])}
    for child in range(int(trie.child_start[node]), int(trie.child_start[node + 1])):
        found |= paths(trie, child, (*prefix, int(trie.code[child])))
    return found


def test_the_paths_of_the_trie_are_the_semantic_ids() -> None:
    """No more, no fewer, each with its item; a missing extra code ends the path early."""
    expected = {tuple(code for code in row if code != PAD): item for item, row in enumerate(CODES.tolist())}

    assert paths(PrefixTrie.from_codes(CODES)) == expected


def test_a_random_catalogue_comes_back_whole() -> None:
    """64 items of 3 x 8 codes."""
    codes = random_codes(0)

    assert paths(PrefixTrie.from_codes(codes)) == {tuple(row): item for item, row in enumerate(codes.tolist())}


def test_children_are_padded_with_none() -> None:
    """A leaf, a narrow node and a padding row beside the root."""
    trie = PrefixTrie.from_codes(CODES)
    leaf = int(trie.leaf[0])

    children = trie.children(torch.tensor([ROOT, leaf, NONE]), width=3)

    assert children.tolist() == [[1, 2, NONE], [NONE] * 3, [NONE] * 3]


def test_ancestors_are_the_nodes_of_the_prefixes() -> None:
    """Following an item's ancestors spells its codes, and an ended item repeats its leaf."""
    trie = PrefixTrie.from_codes(CODES)
    ancestors = trie.ancestors

    for item, row in enumerate(CODES.tolist()):
        for level, code in enumerate(row):
            expected = row[level - 1] if code == PAD else code
            assert int(trie.code[ancestors[item, level]]) == expected
    assert torch.equal(ancestors[:, -1], trie.leaf)


def test_sums_of_a_node_are_sums_over_its_items() -> None:
    """Brute force over prefixes."""
    codes = random_codes(1)
    trie = PrefixTrie.from_codes(codes)
    values = torch.arange(64.0).square()
    sums = trie.node_sums(values)
    ancestors = trie.ancestors

    for node in range(1, trie.num_nodes):
        below = (ancestors == node).any(dim=1)
        assert float(sums[node]) == float(values[below].sum())
    assert float(sums[ROOT]) == float(values.sum())


def test_a_prefix_is_allowed_while_one_of_its_items_is() -> None:
    """Blocking both items of a prefix closes it, blocking one does not."""
    trie = PrefixTrie.from_codes(CODES)
    blocked = torch.zeros(2, 5, dtype=torch.bool)
    blocked[0, [1, 2]] = True
    blocked[1, 1] = True

    allowed = trie.allowed_nodes(blocked)

    shared = trie.ancestors[1, 2]
    assert allowed[:, shared].tolist() == [False, True]
    assert allowed[:, trie.leaf[1]].tolist() == [False, False]


def test_a_written_trie_reads_back_equal(tmp_path: Path) -> None:
    """Every array, through int32 on disk."""
    trie = PrefixTrie.from_codes(CODES)
    trie.write(tmp_path / "trie.safetensors")
    read = PrefixTrie.read(tmp_path / "trie.safetensors")

    for spec in fields(trie):
        name = spec.name
        torch.testing.assert_close(getattr(read, name), getattr(trie, name))


def test_probabilities_of_the_children_sum_to_one() -> None:
    """Whatever the logits of codes that no item has."""
    trie = PrefixTrie.from_codes(CODES)
    logits = torch.randn(trie.num_nodes, 8, generator=torch.Generator().manual_seed(0))
    nodes = torch.arange(trie.num_nodes)
    inner = trie.item == NONE

    log_probs = child_log_probs(logits, torch.randn(trie.num_nodes, 4), trie.children(nodes, 4), trie.code)

    torch.testing.assert_close(log_probs.exp().sum(dim=-1), inner.float())
