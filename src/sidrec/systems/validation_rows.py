"""The last days of the fit period as rows: what a stage is judged on that does not learn from them.

Axes: `row` users with a basket on one of those days, `target` items of the basket.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from sidrec.clock import DAY_S
from sidrec.data.catalog import Catalog
from sidrec.decoding.nodes import NONE
from sidrec.evaluation.metrics import ndcg_at_k
from sidrec.systems.base import FitInputs, Query, RankingModel

EPOCH = date(1970, 1, 1)
# Rows that are looked at, each with its user's history: an aligned model's value, and all that a repeat path, of eleven
# weights, is learnt from.
MOST_ROWS, MOST_DRAWN = 500, 1 << 16
BEAM_WIDTH = 20


def drawn_rows(training_set: pl.LazyFrame, seed: int) -> pl.DataFrame:
    """Return the rows of a training set; of more than 65,536, so many of them, drawn by the seed."""
    if not training_set.collect_schema():
        return pl.DataFrame()
    count = int(training_set.select(pl.len()).collect().item())
    if count > MOST_DRAWN:
        chosen = np.sort(np.random.default_rng([seed, 0x2EB]).permutation(count)[:MOST_DRAWN])
        kept = pl.LazyFrame({"row": chosen}, schema={"row": pl.get_index_type()})
        training_set = training_set.with_row_index("row").join(kept, on="row", how="semi").drop("row")
    return training_set.collect(engine="streaming")


def validation_rows(training_set: pl.DataFrame, catalog: Catalog) -> tuple[list[Query], Int[Tensor, "row target"]]:
    """Return a query and the targets (`NONE` is padding) of each row that has a known history and target."""
    index_of = catalog.index_of
    queries, baskets = [], []
    for row in training_set.sort("day", "user_id").iter_rows(named=True):
        pairs = [
            (index_of[item], time)
            for item, time in zip(row["history_item_ids"], row["history_times"], strict=True)
            if item in index_of
        ]
        targets = sorted({index_of[item] for item in row["target_item_ids"] if item in index_of})
        if not pairs or not targets:
            continue
        items, times = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        basket = np.unique(times // DAY_S, return_inverse=True)[1].astype(np.int64)
        now = (row["day"] - EPOCH).days * DAY_S
        queries.append(Query(items, times, basket, now, k=1, exclude_seen=False))
        baskets.append(targets)
    width = max((len(targets) for targets in baskets), default=0)
    table = torch.full((len(baskets), width), NONE)
    for position, targets in enumerate(baskets):
        table[position, : len(targets)] = torch.tensor(targets)
    return queries, table


def rows_value(inputs: FitInputs) -> Callable[[RankingModel], float] | None:
    """Return NDCG@10 on rows of the training set, as a function of the model; None where there is no row."""
    rows = drawn_rows(inputs.training_set, inputs.seed)
    if rows.is_empty():
        return None
    queries, targets = validation_rows(rows, inputs.catalog)
    if not queries:
        return None
    chosen = np.sort(np.random.default_rng([inputs.seed, 0xA11]).permutation(len(queries))[:MOST_ROWS])
    asked = [replace(queries[row], k=10) for row in chosen]
    wanted = targets[torch.from_numpy(chosen)]
    sizes = (wanted != NONE).sum(dim=1).numpy()

    def ndcg(model: RankingModel) -> float:
        nothing = np.zeros(len(inputs.catalog), dtype=np.bool_)
        hits = np.zeros((len(asked), 10), dtype=np.bool_)
        for row, ranking in enumerate(model.rank(asked, beam_width=BEAM_WIDTH, blocked=nothing)):
            hits[row, : len(ranking.items)] = np.isin(ranking.items, wanted[row].numpy())
        return float(ndcg_at_k(hits, sizes, 10).mean())

    return ndcg
