"""A recipe's raw files to clean tables in memory, by the cleaning of the pipeline, without its checks."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from sidrec.data.adapters import open_adapter
from sidrec.data.batch import open_batch
from sidrec.data.cleaning import clean
from sidrec.data.config import DataConfig
from sidrec.data.tables import Polars


@dataclass(frozen=True, slots=True)
class Tables:
    """What `validate_events` hands on."""

    events: pl.DataFrame
    sales: pl.DataFrame
    items_raw: pl.DataFrame


def clean_tables(config: DataConfig, *, as_of: date, gate_start: date, watermark: date | None) -> Tables:
    """Return the clean tables of a recipe's data.

    Raises:
        SourceRefusedError: a file cannot be read as a table.
    """
    engine, nowhere = Polars(), Path()
    batch = open_batch(open_adapter(config, as_of), engine, nowhere)
    cleaned = clean(batch.parse(), engine, nowhere, gate_start=gate_start, watermark=watermark)
    return Tables(cleaned.events.frame, cleaned.sales.frame, cleaned.items_raw.frame)
