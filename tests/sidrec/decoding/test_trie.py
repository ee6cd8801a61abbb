"""The trie accepts exactly the catalogue."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file

from sidrec.data.catalog import PAD
from sidrec.decoding.nodes import NodeArrays
from sidrec.decoding.trie import NONE, ROOT, PrefixTrie, child_log_probs
from sidrec.errors import BundleError, UsageError
from tests.sidrec.decoding.catalogues import catalogues

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


def assert_equal(left: PrefixTrie, right: PrefixTrie) -> None:
    for spec in fields(NodeArrays):
        torch.testing.assert_close(getattr(left, spec.name), getattr(right, spec.name))
    assert left.starts == right.starts
    assert left.packed_code.dtype == right.packed_code.dtype


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


@pytest.mark.parametrize("codes", [CODES, random_codes(2), np.array([[3]], dtype=np.int32)])
def test_a_written_trie_reads_back_equal(codes: np.ndarray, tmp_path: Path) -> None:
    """Every array over its nodes, with items that end early and without."""
    trie = PrefixTrie.from_codes(codes)
    trie.write(tmp_path / "trie.safetensors")

    assert_equal(PrefixTrie.read(tmp_path / "trie.safetensors"), trie)


def test_a_file_of_the_first_format_still_opens(tmp_path: Path) -> None:
    """It held nine int32 arrays over all nodes, a sentinel of -1 for the root's code among them."""
    trie = PrefixTrie.from_codes(CODES)
    arrays = {spec.name: getattr(trie.nodes, spec.name).int() for spec in fields(NodeArrays)}
    save_file(arrays | {"level_start": trie.level_start.int()}, tmp_path / "trie.safetensors")

    assert_equal(PrefixTrie.read(tmp_path / "trie.safetensors"), trie)


@pytest.mark.parametrize("damage", ["text", "other arrays"])
def test_a_file_that_holds_no_trie_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "trie.safetensors"
    path.write_text("no trie") if damage == "text" else save_file({"code": torch.zeros(2)}, path)

    with pytest.raises(BundleError) as refused:
        PrefixTrie.read(path)

    assert refused.value.evidence == str(path)


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_every_array_is_what_a_walk_over_the_catalogue_finds(codes: np.ndarray) -> None:
    """Prefixes in breadth-first order with their codes, parents, children, items and runs of items."""
    trie = PrefixTrie.from_codes(codes)
    sids = [tuple(code for code in row if code != PAD) for row in codes.tolist()]
    prefixes = sorted({sid[:length] for sid in sids for length in range(len(sid) + 1)}, key=lambda p: (len(p), p))
    number = {prefix: node for node, prefix in enumerate(prefixes)}
    order = sorted(range(len(sids)), key=sids.__getitem__)

    assert trie.num_nodes == len(prefixes)
    assert trie.code.tolist() == [prefix[-1] if prefix else NONE for prefix in prefixes]
    assert trie.parent.tolist() == [number[prefix[:-1]] if prefix else NONE for prefix in prefixes]
    assert trie.item.tolist() == [sids.index(prefix) if prefix in sids else NONE for prefix in prefixes]
    assert trie.leaf.tolist() == [number[sid] for sid in sids]
    assert trie.leaf_order.tolist() == order
    for node, prefix in enumerate(prefixes):
        children = [number[other] for other in prefixes if len(other) == len(prefix) + 1 and other[:-1] == prefix]
        assert list(range(int(trie.child_start[node]), int(trie.child_start[node + 1]))) == children
        below = [item for item in order if sids[item][: len(prefix)] == prefix]
        assert trie.leaf_order[trie.leaf_start[node] : trie.leaf_end[node]].tolist() == below


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_what_a_search_reads_is_the_catalogue(codes: np.ndarray) -> None:
    """Continuations lead from the root to every item once, paths lead back, and one past a level goes nowhere."""
    trie = PrefixTrie.from_codes(codes)
    places, spelt = torch.zeros(1, dtype=torch.int32), [()]
    paths = trie.paths(torch.arange(len(codes)))
    for depth in range(trie.num_levels):
        places = torch.cat([places, torch.tensor([trie.num_places(depth)], dtype=torch.int32)])
        run = trie.continuations(depth, places)
        assert int(run.end[-1]) == int(run.start[-1])
        below = [(row, place) for row in range(len(spelt)) for place in range(int(run.start[row]), int(run.end[row]))]
        nodes = [place + int(run.to_node.expand(len(places))[row]) for row, place in below]
        # An item that ended keeps its node and its codes.
        spelt = [
            spelt[row] if node < trie.starts[depth + 1] else (*spelt[row], int(trie.packed_code[node]))
            for (row, _), node in zip(below, nodes, strict=True)
        ]
        for item, place in enumerate(paths[depth + 1].tolist()):
            assert codes[item][: depth + 1][: len(spelt[place])].tolist() == list(spelt[place])
        places = torch.tensor([place for _, place in below], dtype=torch.int32)
    found = dict(zip(spelt, trie.items_at(places).tolist(), strict=True))

    assert found == {tuple(c for c in row if c != PAD): item for item, row in enumerate(codes.tolist())}
    assert trie.items_at(torch.tensor([len(codes)])).tolist() == [NONE]


def test_codes_beyond_one_sort_key_are_sorted_by_columns() -> None:
    """Five levels of 30 bits do not fit 63: the same order as that of the tuples."""
    codes = np.random.default_rng(0).integers(0, 2**30, (50, 5)).astype(np.int32)

    assert PrefixTrie.from_codes(codes).leaf_order.tolist() == sorted(range(50), key=lambda i: tuple(codes[i]))


def test_a_million_items_take_less_than_eight_bytes_each() -> None:
    """Three levels of 256: the trie itself, and the places of the items on top, by the bytes of their arrays."""
    flat = np.random.default_rng(0).permutation(256**3)[:1_000_000]
    trie = PrefixTrie.from_codes(np.stack(np.unravel_index(flat, (256,) * 3), axis=1).astype(np.int32))

    assert trie.nbytes + trie.place.nbytes < 8 * trie.num_items


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([[1, 2], [0, 1], [1, 2]], r"items 0 and 2 share the semantic ID \[1, 2\]"),
        ([[1, 2, PAD], [1, 2, 0]], r"\[1, 2\] of item 0 is the beginning of \[1, 2, 0\] of item 1"),
        ([[1, PAD, 0]], r"lowest codes by level are \[1, -1, 0\]"),
        ([[PAD]], r"lowest codes by level are \[-1\]"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
    ],
)
def test_what_is_no_catalogue_is_refused_by_name(codes: list[list[int]], said: str) -> None:
    """Twins, a semantic ID that goes on, a code that is none, nothing at all."""
    with pytest.raises(UsageError, match=said):
        PrefixTrie.from_codes(np.array(codes, dtype=np.int32))


def test_probabilities_of_the_children_sum_to_one() -> None:
    """Whatever the logits of codes that no item has."""
    trie = PrefixTrie.from_codes(CODES)
    logits = torch.randn(trie.num_nodes, 8, generator=torch.Generator().manual_seed(0))
    nodes = torch.arange(trie.num_nodes)
    inner = trie.item == NONE

    log_probs = child_log_probs(logits, torch.randn(trie.num_nodes, 4), trie.children(nodes, 4), trie.code)

    torch.testing.assert_close(log_probs.exp().sum(dim=-1), inner.float())
