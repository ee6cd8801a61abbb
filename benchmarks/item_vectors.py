"""Item vectors of real catalogues, as a codebook's fit sees them: text, smoothed over what training users bought.

Axes: `item` rows in item-index order, `width` of an item vector.
"""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sidrec import files
from sidrec.clock import day_start
from sidrec.data.baskets import build_baskets, build_items
from sidrec.data.config import DataConfig, EmbeddingConfig
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.data.graph import item_graph, smooth
from sidrec.data.ingest import clean_tables
from sidrec.quantization.config import CodebookConfig
from sidrec.study.data import DATA_VARIABLE

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "beauty": "amazon_beauty_2014",
    "scientific": "amazon_scientific_2018",
    "industrial": "amazon_industrial_2018",
}
RETAIL = Path("data/online_retail/transactions.parquet")
# The fit period of Online Retail ends with October 2010; an Amazon folder's is its rows of split `train`.
RETAIL_FIT_END = date(2010, 11, 1)
NAMES = (*FOLDERS, "online_retail")
EMBEDDING = EmbeddingConfig.model_validate({"dim": 64})
SMOOTHING = {
    "online_retail": CodebookConfig.model_validate({"windows": "baskets"}),
    **dict.fromkeys(FOLDERS, CodebookConfig.model_validate({"windows": "events", "window": 5})),
}


class MissingDataError(Exception):
    """The data are not on this machine; the message says where they are looked for."""


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Unit vectors, who is how popular in the fit period, and the files that they come from."""

    vectors: Float[Tensor, "item width"]
    rank: NDArray[np.int64]
    sources: dict[str, str]
    """SHA-256 by file name."""
    train_events: int
    edges: int


def item_vectors(name: str) -> ItemVectors:
    """Return the item vectors of a data set by its name.

    Raises:
        MissingDataError: its files are not here.
    """
    paths, items, baskets = _retail() if name == "online_retail" else _amazon(name)
    counts = baskets.explode("item_ids").group_by("item_ids").agg(count=pl.len())
    rank = items.join(counts, left_on="item_id", right_on="item_ids", how="left", maintain_order="left")["count"]
    settings = SMOOTHING[name]
    graph = item_graph(
        baskets,
        items["item_id"].to_list(),
        windows=settings.windows,
        window=settings.window,
        max_neighbours=settings.max_neighbours,
    )
    texts = item_texts(items)
    content = TextEmbedder.fit(texts, EMBEDDING).embed(texts)
    aligned = smooth(content, graph, alpha=settings.smoothing_alpha, steps=settings.smoothing_steps)
    return ItemVectors(
        vectors=torch.from_numpy(aligned),
        rank=rank.fill_null(0).to_numpy().astype(np.int64),
        sources={path.name: files.sha256_file(path) for path in paths},
        train_events=int(counts["count"].sum()),
        edges=graph.nnz // 2,
    )


def _amazon(name: str) -> tuple[list[Path], pl.DataFrame, pl.DataFrame]:
    """Return files, items and one basket a user's training event, in the order of `seq_pos`."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise MissingDataError(f"{name}: set {DATA_VARIABLE} to the folder that holds {FOLDERS[name]}")
    paths = [Path(root) / FOLDERS[name] / file for file in ("interactions.parquet", "items.parquet")]
    for path in paths:
        if not path.is_file():
            raise MissingDataError(f"{name}: {path} is missing ({DATA_VARIABLE} is {root})")
    train = pl.read_parquet(paths[0]).filter(pl.col("split") == "train")
    baskets = train.select("user_id", day="seq_pos", item_ids=pl.concat_list("item_id"))
    return paths, pl.read_parquet(paths[1]).sort("item_id"), baskets


def _retail() -> tuple[list[Path], pl.DataFrame, pl.DataFrame]:
    path = ROOT / RETAIL
    if not path.is_file():
        raise MissingDataError(f"online_retail: {path} is missing")
    data = DataConfig.model_validate({"adapter": "online_retail", "events": path})
    cleaned = clean_tables(data, as_of=RETAIL_FIT_END, gate_start=RETAIL_FIT_END, watermark=None)
    before = pl.col("timestamp") < day_start(RETAIL_FIT_END)
    baskets = build_baskets(cleaned.events.filter(before), RETAIL_FIT_END)
    return [path], build_items(cleaned.sales.filter(before), cleaned.items_raw, baskets, RETAIL_FIT_END), baskets
