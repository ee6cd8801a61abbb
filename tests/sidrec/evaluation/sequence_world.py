"""Small sequences whose right answers can be read off, and the Amazon folders where they are on this machine."""

import functools
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.evaluation.sequences import SplitName, Ties, read_sequences

DATA_VARIABLE = "SIDREC_BENCH_DATA"


def events_of(users: dict[str, str]) -> pl.DataFrame:
    """Return events of users written as `a b | c | d`: items of train, then valid, then test."""
    rows = []
    for user, text in users.items():
        position = 0
        for split, items in zip(("train", "valid", "test"), text.split("|"), strict=True):
            for item in items.split():
                rows.append({"user_id": user, "item_id": item, "position": position, "split": split})
                position += 1
    schema = {"user_id": pl.String, "item_id": pl.String, "position": pl.Int64, "split": pl.String}
    return pl.DataFrame(rows, schema=schema)


def items_of(item_ids: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": item_ids.split()})


def random_events(seed: int, *, users: int = 12, items: int = 9, last: int = 1) -> dict[str, str]:
    """Return users with 1 to 6 train events, then `last` of valid and of test; repeats happen."""
    generator = np.random.default_rng(seed)
    found = {}
    for number in range(users):
        drawn = [f"i{item}" for item in generator.integers(0, items, size=int(generator.integers(1, 7)) + 2 * last)]
        train = len(drawn) - 2 * last
        parts = (drawn[:train], drawn[train : train + last], drawn[train + last :])
        found[f"u{number:02d}"] = " | ".join(" ".join(part) for part in parts)
    return found


RANDOM_ITEMS = " ".join(f"i{number}" for number in range(9))


def amazon_folder(name: str) -> Path:
    """Return the folder of that data set; skip the test where it is not on this machine."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        pytest.skip(f"set {DATA_VARIABLE} to the folder that holds {name}")
    folder = Path(root) / name
    if not (folder / "interactions.parquet").is_file():
        pytest.skip(f"{DATA_VARIABLE} is {root}, which does not hold {name}")
    return folder


@functools.cache
def amazon(name: str, ties: Ties, split: SplitName) -> tuple[pl.DataFrame, pl.DataFrame]:
    return read_sequences(amazon_folder(name), ties=ties, split=split)
