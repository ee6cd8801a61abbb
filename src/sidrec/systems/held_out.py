"""The repeat path is learnt on the last days of the fit period, with a generator that ended before them.

Axes: `row` users with a basket on one of those days, `item` of a list of theirs (padded), `target` items of the basket.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.data.catalog import Catalog
from sidrec.decoding.nodes import NONE
from sidrec.systems.answers import CHUNK
from sidrec.systems.base import Query, RankingModel
from sidrec.systems.history import History
from sidrec.systems.popularity_masses import recent_counts
from sidrec.systems.repeat import RepeatPath, fit_repeat_path, history_items, log_recent, with_best_offset
from sidrec.systems.validation_rows import validation_rows

# Items outside the history that the gate's offset is judged against; a list's head needs no more.
NEW_CANDIDATES = 20

Score = Callable[[Sequence[Query], Sequence[Int[Tensor, "row item"]]], list[Float[Tensor, "row item"]]]


def learn_repeat_path(
    generator: RankingModel,
    score: Score,
    training_set: pl.DataFrame,
    catalog: Catalog,
    earlier: Sequence[History],
    *,
    cut: int,
    half_life_days: float,
) -> dict[str, Any]:
    """Return the path as plain data, and what it does for the rows of the training set.

    Args:
        generator: fitted on the days before `cut`, without a repeat path.
        score: the generator's exact log-probabilities of each list's items for some queries.
        earlier: the histories before `cut`.
    """
    queries, targets = validation_rows(training_set, catalog)
    # As of the day that the held-out generator ended: the catalogue's own counts are of the validation days.
    recent = log_recent(recent_counts(earlier, len(catalog), cut))
    history = history_items(queries, half_life_days, recent)
    history_log_p, target_log_p = scored(score, queries, history.items, targets)
    path, nats = fit_repeat_path(history, history_log_p, targets, target_log_p, half_life_days=half_life_days)
    asked = [replace(query, k=NEW_CANDIDATES, exclude_seen=True) for query in queries]
    nothing = np.zeros(len(catalog), dtype=np.bool_)
    new = generator.rank(asked, beam_width=NEW_CANDIDATES, blocked=nothing)
    path, offset, ndcg = with_best_offset(path, history, history_log_p, new, targets)
    _, gate = path.log_copy(history, history_log_p)
    real = targets != NONE
    alone = -(target_log_p.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)).mean()
    return {
        "path": asdict(path),
        "rows": len(queries),
        "mean_gate": round(float(gate.sigmoid().mean()), 4),
        "loss_without": round(float(alone), 4),
        "loss_with": round(nats, 4),
        "gate_offset": offset,
        "ndcg_at_10": round(ndcg, 4),
    }


def path_of(values: dict[str, Any] | None) -> RepeatPath | None:
    """Return the repeat path that `learn_repeat_path`, or a model's header, has as plain data."""
    if values is None:
        return None
    return RepeatPath(tuple(values["copy_weights"]), tuple(values["gate_weights"]), values["half_life_days"])


@torch.no_grad()
def scored(score: Score, queries: Sequence[Query], *lists: Int[Tensor, "row item"]) -> list[Float[Tensor, "row item"]]:
    """Return the generator's exact log-probabilities of each list's items."""
    parts: list[list[Tensor]] = [[] for _ in lists]
    for first in range(0, len(queries), CHUNK):
        rows = slice(first, first + CHUNK)
        for found, values in zip(parts, score(queries[rows], [items[rows] for items in lists]), strict=True):
            found.append(values)
    return [torch.cat(found) for found in parts]
