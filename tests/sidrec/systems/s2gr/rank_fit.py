"""Run by torchrun: fit S²GR on the baskets of a folder; every rank calls it, rank 0 writes."""

import sys
from datetime import date
from pathlib import Path

import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.systems.base import FitInputs
from sidrec.systems.config import RepeatConfig
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.s2gr.train import S2GRSystem

CODEBOOK = S2GRCodebookConfig(codebook_size=8, code_dim=4, hidden_dims=(8,), num_clusters=3)
# Without dropout, of units or of items, ranks draw nothing that one process would not.
MODEL = S2GRModelConfig(dim=16, ff_dim=32, encoder_layers=1, decoder_layers=1, dropout=0.0)
TRAINING = S2GRTrainingConfig(epochs=3, batch_users=16, targets_per_basket=2, item_dropout=0.0, checkpoint_minutes=60)


def fit(world: Path, folder: Path) -> None:
    """Fit on the world's files."""
    system = S2GRSystem(CODEBOOK, MODEL, TRAINING, RepeatConfig(enabled=False))
    catalog = Catalog.read(world / "catalogue.parquet")
    baskets = pl.scan_parquet(world / "baskets.parquet")
    system.fit(FitInputs(baskets, pl.LazyFrame(), catalog, world / "codebook", date(2010, 11, 1), 0, 1), folder)


if __name__ == "__main__":
    fit(Path(sys.argv[1]), Path(sys.argv[2]))
