"""Semantic IDs as item features, one set a codebook lineage, from a bundle's catalogue.

They are for analysis and for other models: serving reads semantic IDs from its bundle alone.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feature_repo.store import MATERIALIZE_LOCK, live_folder, open_store, sources_dir, write_source
from sidrec import home
from sidrec.errors import UsageError
from sidrec.process import exclusive

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "codebook_lineage": pl.String,
    "codes": pl.List(pl.Int32),
    "event_timestamp": pl.Datetime("us", "UTC"),
}
SCHEMA = pl.Schema(_COLUMNS)

_LOCK_WAIT_S = 600.0


def publish_semantic_ids(catalogue_path: Path, lineage: str) -> int:
    """Write a catalogue's semantic IDs into the offline and the live online store and return how many.

    Publishing a lineage again replaces it; other lineages stay. An item that left the lineage's catalogue is
    gone with the next generation of the online store.

    Raises:
        UsageError: there is no catalogue, or no lineage.
        ServingError: there is no feature store yet.
    """
    if not catalogue_path.is_file() or not lineage:
        raise UsageError(f"semantic IDs need a catalogue and its lineage, seen {catalogue_path} and {lineage!r}")
    rows = pl.read_parquet(catalogue_path).select(
        "item_id",
        pl.lit(lineage).alias("codebook_lineage"),
        pl.col("codes").cast(pl.List(pl.Int32)),
        pl.lit(datetime.now(UTC), dtype=SCHEMA["event_timestamp"]).alias("event_timestamp"),
    )
    with exclusive(home.feast_dir() / MATERIALIZE_LOCK, "the feature store", wait_s=_LOCK_WAIT_S):
        store = open_store(live_folder(home.feast_dir()))
        source = sources_dir() / "item_semantic_id.parquet"
        others = pl.read_parquet(source).filter(pl.col("codebook_lineage") != lineage)
        write_source("item_semantic_id", pl.concat([others, rows]))
        store.write_to_online_store("item_semantic_id", rows.to_pandas())
    return rows.height
