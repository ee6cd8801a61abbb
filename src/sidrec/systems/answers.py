"""What every ranker does around its search: queries in chunks, the history beside what was found, rankings at the end.

Axes: `row` queries, `found` items of a search, `item` catalogue rows.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.decoding.nodes import NONE
from sidrec.systems.base import Query, Ranking, ranking_of
from sidrec.systems.repeat import RepeatPath, history_items, with_history

# Users decoded at once: enough to fill the matrix products, few enough that a batch stays in the caches.
CHUNK = 32


def in_chunks(queries: Sequence[Query], rank: Callable[[Sequence[Query]], list[Ranking]]) -> list[Ranking]:
    """Return the rankings of all queries, in order, by `rank` of at most `CHUNK` at once."""
    rankings: dict[int, Ranking] = {}
    # Histories of like lengths in a chunk: it is padded to its longest.
    order = sorted(range(len(queries)), key=lambda row: len(queries[row].items))
    for first in range(0, len(queries), CHUNK):
        rows = order[first : first + CHUNK]
        rankings.update(zip(rows, rank([queries[row] for row in rows]), strict=True))
    return [rankings[row] for row in range(len(queries))]


def answers(
    queries: Sequence[Query],
    items: Int[Tensor, "row found"],
    log_p: Float[Tensor, "row found"],
    *,
    repeat: RepeatPath | None,
    score: Callable[[Int[Tensor, "row item"]], Float[Tensor, "row item"]],
    recent: NDArray[np.float64],
    popularity: NDArray[np.int64],
    blocked: NDArray[np.bool_],
    stats: Sequence[Mapping[str, float]] | None = None,
) -> list[Ranking]:
    """Return each query's best items out of the search and, unless seen items are excluded, of its history.

    Args:
        items: what the search found, `NONE` where nothing, with the generator's log-probabilities.
        score: gives the generator's log-probabilities of a history's items; `NONE` are not asked for.
        recent: log recent popularity by item, as the repeat path reads it.
    """
    valid = (items != NONE).sum(dim=1).tolist()
    scores = log_p.double()
    if repeat is not None and not all(query.exclude_seen for query in queries):
        history = history_items(queries, repeat.half_life_days, recent)
        # A query that excludes its history has none to score, but keeps its row.
        excluded = torch.tensor([query.exclude_seen for query in queries])
        history_log_p = score(torch.where(excluded[:, None], NONE, history.items))
        shut = torch.from_numpy(blocked)
        items, scores = with_history(repeat, history, history_log_p, items, scores, excluded=excluded, blocked=shut)
    return [
        ranking_of(
            items[row].numpy(),
            scores[row].numpy(),
            popularity=popularity,
            k=query.k,
            valid_beams=valid[row],
            stats=None if stats is None else stats[row],
        )
        for row, query in enumerate(queries)
    ]
