"""The probe says what a thinking token points at, by the definition."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from sidrec.decoding.trie import PrefixTrie
from sidrec.systems.base import Query
from sidrec.systems.s2gr.clusters import Clusters
from sidrec.systems.s2gr.config import S2GRModelConfig
from sidrec.systems.s2gr.model import Decoding, S2GRModel
from sidrec.systems.s2gr.probe import Probe, probe
from sidrec.systems.s2gr.rank import S2GRRanker

DAY = 86_400


def ranker_of(world: Any, **change: Any) -> S2GRRanker:
    torch.manual_seed(0)
    config = S2GRModelConfig(dim=16, ff_dim=32, dropout=0.0).model_copy(update=change)
    trie = PrefixTrie.from_codes(world.catalog.codes)
    model = S2GRModel(config, codebook_sizes=[8, 8, 8], code_dim=4, num_nodes=trie.num_nodes)
    with torch.no_grad():
        for table in model.code_out:
            table.normal_()
    clusters = Clusters(torch.randint(0, 3, (3, 8)), torch.randn(3, 3, 4))
    return S2GRRanker.of(model, world.catalog, trie, torch.randn(trie.num_nodes), None, clusters)


def queries() -> list[Query]:
    rng = np.random.default_rng(1)
    found = []
    for size in (3, 1, 5):
        items = rng.integers(0, 64, size)
        found.append(Query(items, np.arange(size) * DAY, np.arange(size), size * DAY, k=1, exclude_seen=False))
    return found


@torch.no_grad()
def test_codes_and_clusters_are_those_of_one_row_and_level_after_the_other(world: Any) -> None:
    ranker = ranker_of(world)
    targets = torch.tensor([40, 7, 19])
    found = probe(ranker, queries(), targets)

    for row, (query, item) in enumerate(zip(queries(), targets.tolist(), strict=True)):
        memory = ranker.encode([query])
        decoding = Decoding(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
        inputs, codes = decoding.begin(), world.catalog.codes[item]
        for level in range(3):
            logits, tokens = decoding.next_logits(level, inputs)
            space = ranker.model.to_code_space(tokens[level][0, 0])
            cosines = [float(cosine_similarity(space, centre, dim=0)) for centre in ranker.clusters.centres[level]]
            prefix = tuple(codes[:level])
            allowed = sorted({c[level] for c in world.catalog.codes.tolist() if tuple(c[:level]) == prefix})
            nodes = [child_of(ranker, prefix, code) for code in allowed]
            scores = [float(logits[0, 0, code] + ranker.bias[node]) for code, node in zip(allowed, nodes, strict=True)]
            assert found.cluster[row, level] == int(np.argmax(cosines))
            assert found.true_cluster[row, level] == ranker.clusters.of[level, codes[level]]
            assert bool(found.code_right[row, level]) == (allowed[int(np.argmax(scores))] == codes[level])
            inputs = ranker.model.code_in[level][int(codes[level])][None, None]


def child_of(ranker: S2GRRanker, prefix: tuple[int, ...], code: int) -> int:
    """The node of a prefix extended by a code, by walking all nodes."""
    node = 0
    for step in (*prefix, code):
        [node] = [
            n for n in range(1, ranker.trie.num_nodes) if ranker.trie.parent[n] == node and ranker.trie.code[n] == step
        ]
    return node


def test_a_summary_is_shares_by_level() -> None:
    right = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    cluster = torch.tensor([[0, 1], [0, 0], [1, 1], [1, 1]])
    summary = Probe(right, cluster, torch.tensor([[0, 1], [1, 0], [1, 0], [0, 0]])).summary()

    assert summary == {"code_accuracy": [0.5, 0.5], "prefix_accuracy": [0.5, 0.25], "cluster_accuracy": [0.5, 0.5]}


@pytest.mark.parametrize("thinking", ["none", "pause"])
def test_without_thinking_tokens_there_is_no_cluster_to_be_right(world: Any, thinking: str) -> None:
    summary = probe(ranker_of(world, thinking=thinking), queries(), torch.tensor([1, 2, 3])).summary()

    assert set(summary) == {"code_accuracy", "prefix_accuracy"}
