"""A tiny world: 64 items of 3 x 8 codes in 8 themes; users stay with a theme and buy some things again."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import encoder_of
from sidrec.quantization.quantizer import Quantizer
from sidrec.systems.base import FitInputs
from sidrec.systems.config import RepeatConfig
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig

FIT_END = date(2010, 11, 1)
THEMES = 8


@dataclass(frozen=True)
class World:
    catalog: Catalog
    baskets: pl.DataFrame
    training_set: pl.DataFrame
    codebook: Path

    def inputs(self, seed: int = 0) -> FitInputs:
        return FitInputs(self.baskets.lazy(), self.training_set.lazy(), self.catalog, self.codebook, FIT_END, seed, 1)


def save_codebook(folder: Path) -> None:
    """Write a codebook of 3 levels x 8 codes."""
    config = CodebookConfig(codebook_size=8, code_dim=4, hidden_dims=(8,))
    torch.manual_seed(0)
    quantizer = Quantizer("rqvae", torch.randn(3, 8, 4), encoder_of(config, 6))
    Codebook(config, quantizer, 6, "test").save(folder)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    rng = np.random.default_rng(0)
    items = [f"i{row:02d}" for row in range(64)]
    codes = np.stack([np.arange(64) // THEMES, rng.integers(0, 8, 64), np.arange(64) % 8], axis=1).astype(np.int32)
    rows, recent = [], []
    for user in range(60):
        theme = user % THEMES
        day = date(2010, 3, 1) + timedelta(days=int(rng.integers(0, 60)))
        history: list[tuple[date, list[str]]] = []
        while day < FIT_END:
            own = rng.choice(THEMES, size=3, replace=False) + theme * THEMES
            bought = sorted({*(items[index] for index in own), items[rng.integers(0, 64)]})
            if history:
                bought = sorted({*bought, *history[-1][1][:1]})
            rows.append({"user_id": f"u{user:02d}", "day": day, "time": 0, "item_ids": bought})
            if history and day >= FIT_END - timedelta(days=31):
                recent.append(
                    {
                        "user_id": f"u{user:02d}",
                        "day": day,
                        "history_item_ids": [item for _, basket in history for item in basket],
                        "history_times": [_time(past) for past, basket in history for _ in basket],
                        "target_item_ids": bought,
                    }
                )
            history.append((day, bought))
            day += timedelta(days=int(rng.integers(10, 40)))
    baskets = pl.DataFrame(rows)
    counts = baskets.explode("item_ids").group_by("item_ids").len().rows()
    popularity = dict(counts)
    catalog = Catalog.build(
        pl.DataFrame(
            {
                "item_id": items,
                "title": items,
                "popularity": [popularity.get(item, 0) for item in items],
                "recent_popularity": [popularity.get(item, 0) for item in items],
            }
        ),
        codes,
    )
    folder = tmp_path_factory.mktemp("codebook")
    save_codebook(folder)
    catalog.write(folder / "catalogue.parquet")
    return World(catalog, baskets, pl.DataFrame(recent), folder)


@pytest.fixture(scope="session")
def codebook_config() -> S2GRCodebookConfig:
    return S2GRCodebookConfig(codebook_size=8, code_dim=4, hidden_dims=(8,), num_clusters=3)


@pytest.fixture
def model_config() -> S2GRModelConfig:
    return S2GRModelConfig(dim=16, ff_dim=32, encoder_layers=1, decoder_layers=1, dropout=0.1)


@pytest.fixture
def training_config() -> S2GRTrainingConfig:
    return S2GRTrainingConfig(epochs=2, batch_users=16, targets_per_basket=2, checkpoint_minutes=60)


@pytest.fixture
def repeat_config() -> RepeatConfig:
    return RepeatConfig()


def _time(day: date) -> int:
    return (day - date(1970, 1, 1)).days * 86_400
