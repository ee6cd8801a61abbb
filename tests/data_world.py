"""A small shop's own files, slices of the real retail data, and recipes that read them."""

import os
from datetime import date, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from sidrec.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[1]
RAW = ROOT / "data" / "online_retail" / "transactions.parquet"
BEAUTY = Path(os.environ.get("SIDREC_BENCH_DATA", "absent")) / "amazon_beauty_2014"
# What must make the rows that polars makes.
ENGINES = [
    "duckdb",
    pytest.param(
        "spark:local[2]",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(find_spec("pyspark") is None, reason="no pyspark: pip install 'sidrec[spark]'"),
        ],
    ),
]
DAYS = 120
START = date(2026, 1, 5)


def recipe(data: dict[str, Any], **values: Any) -> Recipe:
    """Return the shipped popularity recipe with its data section and top-level values replaced."""
    shipped = yaml.safe_load((ROOT / "pipelines" / "recipes" / "popularity_retail.yaml").read_text())
    return parse_recipe(yaml.safe_dump({**shipped, "data": data, **values}))


def retail_recipe(events: Path = RAW, **values: Any) -> Recipe:
    """Return the retail recipe on another file."""
    return recipe({"adapter": "online_retail", "events": str(events)}, **values)


@cache
def retail(since: str = "2010-10-10") -> pl.DataFrame:
    """Return the real sheet from a day on."""
    return pl.read_parquet(RAW).filter(pl.col("InvoiceDate") >= since)


def shop_events(seed: int = 0, *, num_users: int = 40, num_items: int = 60, per_day: int = 30) -> pl.DataFrame:
    """Return a shop's events, by its own column names: the same volume every day."""
    rng = np.random.default_rng(seed)
    rows = DAYS * per_day
    days = np.repeat(np.arange(DAYS), per_day)
    seconds = np.sort(rng.integers(0, 86_400, size=(DAYS, per_day)), axis=1).ravel()
    times = [
        f"{START + timedelta(days=int(d))}T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}Z"
        for d, s in zip(days, seconds, strict=True)
    ]
    return pl.DataFrame(
        {
            "customer": [f"c{n}" for n in rng.integers(num_users, size=rows)],
            "sku": [f"s{n:03d}" for n in rng.zipf(1.3, size=rows) % num_items],
            "bought_at": times,
            "pieces": rng.integers(1, 5, size=rows),
        }
    )


def shop_items(num_items: int = 60) -> pl.DataFrame:
    """Return the shop's items, by its own column names."""
    return pl.DataFrame(
        {
            "sku": [f"s{n:03d}" for n in range(num_items)],
            "name": [f"{'red' if n % 2 else 'blue'} thing number {n}" for n in range(num_items)],
            "maker": ["acme"] * num_items,
        }
    )


def shop_data(folder: Path, events: pl.DataFrame | None = None, items: pl.DataFrame | None = None) -> dict[str, Any]:
    """Write the shop's CSV files and return the recipe's data section for them."""
    (shop_events() if events is None else events).write_csv(folder / "events.csv")
    (shop_items() if items is None else items).write_csv(folder / "items.csv")
    return {
        "adapter": "table",
        "events": str(folder / "events.csv"),
        "items": str(folder / "items.csv"),
        "event_columns": {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at", "quantity": "pieces"},
        "item_columns": {"item_id": "sku", "title": "name", "brand": "maker"},
    }


def shop_recipe(data: dict[str, Any], **values: Any) -> Recipe:
    """Return a recipe that gates on the shop's last 20 days."""
    return recipe(data, **{"as_of": START + timedelta(days=DAYS), "gate_days": 20, **values})
