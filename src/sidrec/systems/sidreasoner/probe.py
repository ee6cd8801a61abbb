"""What the direct mode says on the way to a known next item: which code it holds most probable after the true ones.

Axes: `row` users with a known next item, `level` codes of a semantic ID.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.decoding.trie import ROOT, child_log_probs
from sidrec.systems.answers import CHUNK
from sidrec.systems.base import Query
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker


@torch.no_grad()
def probe(ranker: SIDReasonerRanker, queries: Sequence[Query], targets: Int[Tensor, " row"]) -> dict[str, Any]:
    """Return shares by level, the true codes fed back, over the rows whose item has a code there.

    `code_accuracy`: the most probable code after the true prefix is the true one. `prefix_accuracy`: it and all before
    it are. `true_prob`: the mean probability of the true code.
    """
    order = np.argsort([len(query.items) for query in queries], kind="stable")
    parts = []
    for first in range(0, len(order), CHUNK):
        rows = order[first : first + CHUNK]
        parts.append(_probe_chunk(ranker, [queries[row] for row in rows], targets[torch.from_numpy(rows)]))
    if not parts:
        return {}
    right, prob, there = (torch.cat(column) for column in zip(*parts, strict=True))
    return {
        "code_accuracy": _means(right, there),
        "prefix_accuracy": _means(right.long().cumprod(dim=1), there),
        "true_prob": _means(prob, there),
    }


def _probe_chunk(
    ranker: SIDReasonerRanker, queries: Sequence[Query], item: Int[Tensor, " row"]
) -> tuple[Bool[Tensor, "row level"], Float[Tensor, "row level"], Bool[Tensor, "row level"]]:
    trie = ranker.trie
    item = item.to(ranker.bias.device)
    steps = ranker.direct_steps(queries)
    nodes = trie.ancestors[item]
    above = torch.cat([torch.full_like(nodes[:, :1], ROOT), nodes[:, :-1]], dim=1)
    # An item that has ended repeats its leaf.
    there = nodes != above
    right, prob = torch.zeros_like(there), torch.zeros(nodes.shape, device=nodes.device)
    origin = torch.zeros(len(queries), 1, dtype=torch.int64, device=nodes.device)
    logits = steps.begin()
    for level in range(trie.num_levels):
        children = trie.children(above[:, level], trie.max_children[level])
        scores = child_log_probs(logits[:, 0], ranker.bias[children.clamp(min=0)], children, trie.code)
        is_true = children == nodes[:, level, None]
        right[:, level] = is_true.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
        prob[:, level] = scores.exp().masked_fill(~is_true, 0.0).sum(dim=1)
        if level + 1 < trie.num_levels:
            logits = steps.extend(origin, trie.code[nodes[:, level]].long()[:, None])
    return right.cpu(), prob.cpu(), there.cpu()


def _means(values: Tensor, there: Bool[Tensor, "row level"]) -> list[float]:
    return [round(float(share), 4) for share in (values * there).sum(dim=0) / there.sum(dim=0).clamp(min=1)]
