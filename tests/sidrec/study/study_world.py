"""A folder of ordered events in which what follows is learnable, and a recipe that fits it in a second."""

from pathlib import Path

import numpy as np
import polars as pl
import yaml

THEMES, PER_THEME = 4, 6
SECTIONS = {
    "name": "tiny",
    "kind": "s2gr",
    "threads": 1,
    "as_of": "2020-01-01",
    "data": {"adapter": "amazon", "events": "", "derive_times": True},
    "validation": {},
    "features": {},
    "embedding": {"dim": 8, "min_document_count": 1},
    "codebook": {
        "windows": "events",
        "quantizer": "residual_kmeans",
        "num_levels": 2,
        "codebook_size": 8,
        "num_clusters": 3,
        "cluster_restarts": 1,
    },
    "model": {"dim": 16, "ff_dim": 16, "encoder_layers": 1, "decoder_layers": 1, "max_positions": 8},
    "training": {
        "epochs": 2,
        "batch_users": 16,
        "targets_per_basket": 1,
        "item_dropout": 0.0,
        "prior": "static",
        "prior_delay_days": 0,
    },
    "repeat": {"enabled": False},
    "decoding": {"beam_width": 24},
    "evaluation": {"protocol": "leave_one_out", "sequence_floors": ["popularity", "markov"]},
    "gates": {"floor": "global_popularity"},
    "serving": {},
    "monitoring": {},
}


def write_world(folder: Path, *, users: int = 60, seed: int = 0) -> Path:
    """Write interactions and items whose users walk through a theme's items in order, and return their folder."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        theme, start = user % THEMES, int(rng.integers(PER_THEME))
        length = int(rng.integers(4, 7))
        for position in range(length):
            split = {length - 1: "test", length - 2: "valid"}.get(position, "train")
            item = theme * PER_THEME + (start + position) % PER_THEME
            rows.append((f"u{user:02d}", f"i{item:02d}", None, position, split))
    columns = ["user_id", "item_id", "timestamp", "seq_pos", "split"]
    table = pl.DataFrame(rows, schema=columns, orient="row", strict=False).with_columns(
        pl.col("timestamp").cast(pl.Int64), pl.col("seq_pos").cast(pl.Int32)
    )
    blank = pl.lit(None, dtype=pl.Int32)
    table = table.with_columns(
        seq_pos_shuf=blank, split_shuf=pl.lit(None, dtype=pl.String), split_temporal=pl.lit(None, dtype=pl.String)
    )
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "interactions.parquet")
    names = [
        f"{['red', 'blue', 'green', 'grey'][item // PER_THEME]} thing {item}" for item in range(THEMES * PER_THEME)
    ]
    items = pl.DataFrame({"item_id": [f"i{item:02d}" for item in range(len(names))], "title": names})
    blanks = {name: pl.lit(None, dtype=pl.String) for name in ("brand", "categories", "description")}
    items.with_columns(**blanks).write_parquet(folder / "items.parquet")
    return folder


def write_recipe(path: Path, world: Path, **training: object) -> Path:
    """Write the recipe of that world, its training section changed, and return its path."""
    values = {**SECTIONS, "data": {**SECTIONS["data"], "events": str(world)}}  # type: ignore[dict-item]
    values["training"] = {**SECTIONS["training"], **training}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
