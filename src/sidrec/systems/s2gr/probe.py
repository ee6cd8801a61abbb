"""What a thinking token means: which cluster of items it points at, and how often that is the right one.

Axes: `row` users with a known next item, `level` codes of a semantic ID, `cluster` of a level's codewords.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sidrec.decoding.trie import NONE, ROOT, child_log_probs
from sidrec.systems.base import Query
from sidrec.systems.s2gr.model import Decoding
from sidrec.systems.s2gr.rank import S2GRRanker
from sidrec.systems.s2gr.statistics import nearest_clusters

CHUNK = 256


@dataclass(frozen=True, slots=True)
class Probe:
    """Codes and clusters along the semantic IDs of known next items, the true codes fed back."""

    code_right: Bool[Tensor, "row level"]
    """Whether the most probable code after the true prefix is the true one."""
    cluster: Int[Tensor, "row level"]
    """Cluster that is nearest to the thinking token; NONE without one."""
    true_cluster: Int[Tensor, "row level"]

    def summary(self) -> dict[str, list[float]]:
        """Return shares by level: codes right after the true prefix, whole prefixes right, clusters right."""
        prefix = self.code_right.long().cumprod(dim=1)
        result = {
            "code_accuracy": _shares(self.code_right),
            "prefix_accuracy": _shares(prefix),
        }
        thought = self.cluster != NONE
        if thought.any():
            result["cluster_accuracy"] = _shares((self.cluster == self.true_cluster) & thought)
        return result


@torch.no_grad()
def probe(ranker: S2GRRanker, queries: Sequence[Query], targets: Int[Tensor, " row"]) -> Probe:
    """Return the probe of users whose next item is `targets`, over the levels of the residual codebook.

    Source: S²GR's check that argmax_k cos(t_l, c_l,k) is the cluster of the true code.
    """
    order = np.argsort([len(query.items) for query in queries], kind="stable")
    parts = []
    for first in range(0, len(order), CHUNK):
        rows = order[first : first + CHUNK]
        parts.append(_probe_chunk(ranker, [queries[row] for row in rows], targets[torch.from_numpy(rows)]))
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    return Probe(*(torch.cat(column)[back] for column in zip(*parts, strict=True)))


def _probe_chunk(ranker: S2GRRanker, queries: Sequence[Query], item: Int[Tensor, " row"]) -> tuple[Tensor, ...]:
    memory = ranker.encode(queries)
    decoding = Decoding(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
    trie, ancestors = ranker.trie, ranker.trie.ancestors
    levels = len(ranker.model.code_in) if ranker.clusters is None else len(ranker.clusters.of)
    tokens: dict[int, Tensor] = {}
    right = torch.zeros(len(queries), levels, dtype=torch.bool)
    inputs = decoding.begin()
    for level in range(levels):
        logits, found = decoding.next_logits(level, inputs)
        tokens |= found
        node = torch.full_like(item, ROOT) if level == 0 else ancestors[item, level - 1]
        children = trie.children(node, trie.max_children[level])
        scores = child_log_probs(logits[:, 0], ranker.bias[children.clamp(min=0)], children, trie.code)
        best = children.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
        right[:, level] = best == ancestors[item, level]
        inputs = ranker.model.code_in[level][ranker.codes[item, level]][:, None]
    cluster = torch.full((len(queries), levels), NONE)
    true = torch.full((len(queries), levels), NONE)
    if ranker.clusters is not None and ranker.model.config.supervised:
        for level in range(levels):
            nearest = nearest_clusters(ranker.model, ranker.clusters, level, tokens[level][:, 0])
            cluster[:, level] = nearest.argmax(dim=1)
            true[:, level] = ranker.clusters.of[level][ranker.codes[item, level]]
    return right, cluster, true


def _shares(right: Tensor) -> list[float]:
    return [round(float(share), 4) for share in right.float().mean(dim=0)]
