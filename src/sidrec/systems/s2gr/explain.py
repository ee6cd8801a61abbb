"""Why an item was recommended: what the thinking token before each of its codes pointed at, in titles.

A token points at clusters of its level's codewords with probability softmax(cos / temperature), as it was taught to. A
cluster has no name; the popular items that still fit the codes chosen so far, and lie in it, say what it stands for.

Axes: `user` rows of a batch, `item` recommended items of a user, `level` codes of a semantic ID, `cluster` of a level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import PAD
from sidrec.decoding.trie import ROOT, child_log_probs
from sidrec.errors import UsageError
from sidrec.systems.answers import CHUNK
from sidrec.systems.base import Query, Ranking
from sidrec.systems.s2gr.model import Decoding
from sidrec.systems.s2gr.rank import S2GRRanker
from sidrec.systems.s2gr.statistics import nearest_clusters
from sidrec.systems.s2gr.thoughts import CodeStep, ExplainedItem, Explanation, PointedCluster

NEAREST = 3
TITLES = 4
HISTORY = 8


class ExplainingModel:
    """Ranks as the ranker does, and keeps why; implements `sidrec.systems.base.ExplainingModel`."""

    def __init__(self, ranker: S2GRRanker) -> None:
        require_thoughts(ranker)
        self.ranker = ranker
        self.explanations: list[Explanation] = []

    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the ranker's rankings; `explanations` are theirs, in order."""
        rankings = self.ranker.rank(queries, beam_width=beam_width, blocked=blocked)
        self.explanations = explain_rankings(self.ranker, queries, rankings, blocked=blocked)
        return rankings

    def page(self, users: Sequence[str], *, title: str) -> str:
        """Return the last rankings' explanations as one HTML page, under the users' names."""
        from sidrec.systems.s2gr.thoughts_page import thoughts_page

        return thoughts_page(dict(zip(users, self.explanations, strict=True)), title=title)


def explain(
    ranker: S2GRRanker, queries: Sequence[Query], *, k: int, beam_width: int, blocked: NDArray[np.bool_]
) -> list[Explanation]:
    """Return why each query's first `k` items are what `ranker.rank` gives.

    Args:
        blocked: [item], items that are neither recommended nor named.

    Raises:
        UsageError: the model has no thoughts to show.
    """
    model = ExplainingModel(ranker)
    model.rank([replace(query, k=k) for query in queries], beam_width=beam_width, blocked=blocked)
    return model.explanations


def require_thoughts(ranker: S2GRRanker) -> None:
    """Refuse a model whose thinking tokens have no meaning.

    Raises:
        UsageError: it has no thinking tokens, none that were taught, or its clusters were not kept.
    """
    config = ranker.model.config
    if not config.supervised:
        raise UsageError(
            f"the model was fitted with thinking: {config.thinking}, so it has no thoughts to explain; expected "
            "stepwise or ahead",
            next_step="fit a recipe with model.thinking: stepwise",
        )
    if config.align_weight == 0:
        raise UsageError(
            "the model was fitted with align_weight: 0, so its thinking tokens were never taught to point at clusters",
            next_step="fit a recipe with model.align_weight above 0",
        )
    if ranker.clusters is None:
        raise UsageError(
            "the model's weights have no clusters: it was fitted by a version that did not keep them",
            next_step="sidrec run, which fits a model that has them",
        )


def cluster_probs(
    ranker: S2GRRanker, level: int, token: Float[Tensor, "row dim"]
) -> tuple[Float[Tensor, "row cluster"], Float[Tensor, "row cluster"]]:
    """Return the probability with which thinking tokens point at each cluster of their level, and the cosine.

    Source: the softmax inside S²GR's L_Align.
    """
    assert ranker.clusters is not None
    cosine = nearest_clusters(ranker.model, ranker.clusters, level, token)
    return (cosine / ranker.model.config.align_temperature).softmax(dim=-1), cosine


@torch.no_grad()
def explain_rankings(
    ranker: S2GRRanker, queries: Sequence[Query], rankings: Sequence[Ranking], *, blocked: NDArray[np.bool_]
) -> list[Explanation]:
    """Return why the items of rankings were recommended, their codes fed back one by one.

    Raises:
        UsageError: the model has no thoughts to show.
    """
    require_thoughts(ranker)
    explanations: list[Explanation] = []
    for first in range(0, len(queries), CHUNK):
        rows = slice(first, first + CHUNK)
        explanations += _explain_chunk(ranker, queries[rows], rankings[rows], blocked)
    return explanations


def _explain_chunk(
    ranker: S2GRRanker, queries: Sequence[Query], rankings: Sequence[Ranking], blocked: NDArray[np.bool_]
) -> Iterator[Explanation]:
    width = max(1, *(len(ranking.items) for ranking in rankings))
    # A shorter ranking has its place filled with the first item of the catalogue, which nobody asks for.
    items = torch.zeros(len(queries), width, dtype=torch.int64)
    for row, ranking in enumerate(rankings):
        items[row, : len(ranking.items)] = torch.from_numpy(ranking.items)
    tokens, log_probs = _replay(ranker, queries, items)
    assert ranker.clusters is not None
    pointed = [cluster_probs(ranker, level, tokens[level].flatten(0, 1)) for level in range(len(ranker.clusters.of))]
    sold = torch.from_numpy(~blocked)
    for row, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        explained = []
        for column, (item, score) in enumerate(zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True)):
            place = row * width + column
            steps = tuple(
                _step(ranker, item, level, float(log_probs[row, column, level]), pointed, place, sold)
                for level in range(ranker.catalog.num_codes)
                if ranker.catalog.codes[item, level] != PAD
            )
            again = ranker.repeat is not None and item in query.items
            explained.append(
                ExplainedItem(
                    ranker.catalog.item_ids[item],
                    ranker.catalog.title(item),
                    score,
                    sum(step.log_prob for step in steps),
                    "repeat" if again else "generator",
                    steps,
                )
            )
        newest = list(dict.fromkeys(query.items[::-1].tolist()))[:HISTORY]
        history = tuple(ranker.catalog.title(item) for item in newest)
        yield Explanation(ranker.model.config.thinking, history, tuple(explained))


def _replay(
    ranker: S2GRRanker, queries: Sequence[Query], items: Int[Tensor, "user item"]
) -> tuple[dict[int, Float[Tensor, "user item dim"]], Float[Tensor, "user item level"]]:
    """Return the thinking token before each code of the items, by level, and each code's log-probability."""
    memory = ranker.encode(queries)
    decoding = Decoding(ranker.model, memory, memory.rank.amax(dim=1, keepdim=True))
    trie, ancestors = ranker.trie, ranker.trie.ancestors
    copies = items.shape[1]
    tokens: dict[int, Tensor] = {}
    log_probs = []
    node = torch.full_like(items, ROOT)
    inputs = decoding.begin()
    for level in range(trie.num_levels):
        logits, found = decoding.next_logits(level, inputs)
        # What came before the first code is the same for all items of a user.
        tokens |= {of: token.expand(-1, copies, -1) for of, token in found.items()}
        if level == 0:
            logits = logits.expand(-1, copies, -1)
            decoding.fork(copies)
        children = trie.children(node, trie.max_children[level])
        scores = child_log_probs(logits, ranker.bias[children.clamp(min=0)], children, trie.code)
        chosen = ancestors[items, level]
        place = (chosen - trie.child_start[node]).clamp(min=0, max=children.shape[-1] - 1)
        # An item that ended above has no code here, and what stands in its place is not read.
        log_probs.append(scores.gather(-1, place[..., None])[..., 0])
        node = chosen
        inputs = ranker.model.code_in[level][ranker.codes[items, level]]
    return tokens, torch.stack(log_probs, dim=-1)


def _step(
    ranker: S2GRRanker,
    item: int,
    level: int,
    log_prob: float,
    pointed: Sequence[tuple[Float[Tensor, "row cluster"], Float[Tensor, "row cluster"]]],
    place: int,
    sold: Tensor,
) -> CodeStep:
    code = int(ranker.catalog.codes[item, level])
    if level >= len(pointed):
        return CodeStep(level, code, log_prob, (), None)
    assert ranker.clusters is not None
    trie = ranker.trie
    prefix = ROOT if level == 0 else int(trie.ancestors[item, level - 1])
    fitting = trie.leaf_order[trie.leaf_start[prefix] : trie.leaf_end[prefix]]
    fitting = fitting[sold[fitting]]
    cluster_of = ranker.clusters.of[level]
    inside = cluster_of[ranker.codes[fitting, level]]
    probs, cosine = (values[place] for values in pointed[level])

    def seen(cluster: int) -> PointedCluster:
        members = fitting[inside == cluster].numpy()
        order = np.lexsort((members, -ranker.catalog.popularity[members]))[:TITLES]
        titles = tuple(ranker.catalog.title(member) for member in members[order].tolist())
        return PointedCluster(cluster, float(probs[cluster]), float(cosine[cluster]), len(members), titles)

    nearest = cosine.topk(min(NEAREST, len(cosine))).indices.tolist()
    return CodeStep(level, code, log_prob, tuple(map(seen, nearest)), seen(int(cluster_of[code])))
