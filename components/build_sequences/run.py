"""Baskets and the catalogue; no day on or after `as_of` leaves this step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.data.baskets import build_baskets, build_items
from sidrec.errors import CheckFailedError
from sidrec.recipe import Recipe

SECTIONS = ("as_of", "gate_days")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `baskets` and `items`, and return their counts by window.

    Raises:
        CheckFailedError: a window is empty, or the catalogue and its titles differ.
    """
    tables = {name: pl.read_parquet(inputs[name]) for name in ("events", "sales", "items_raw")}
    baskets = build_baskets(tables["events"], recipe.as_of)
    items = build_items(tables["sales"], tables["items_raw"], baskets, recipe.gate_start)
    in_fit = pl.col("day") < recipe.gate_start
    fit, gate = baskets.filter(in_fit), baskets.filter(~in_fit)
    if fit.is_empty() or gate.is_empty():
        empty = f"before {recipe.gate_start}" if fit.is_empty() else f"in [{recipe.gate_start}, {recipe.as_of})"
        raise CheckFailedError(
            f"no basket {empty}: as_of and gate_days do not fit these data",
            evidence=inputs["events"],
            next_step="set as_of to the day after the last day that may be used",
        )
    if items.height != tables["items_raw"].height:
        raise CheckFailedError(
            f"items_raw has {tables['items_raw'].height} items, {items.height} of them with a sale before "
            f"{recipe.gate_start}: it was made for another as_of",
            evidence=inputs["items_raw"],
        )
    assert baskets.select((pl.col("day") < recipe.as_of).all()).item()
    baskets.write_parquet(folder / "baskets")
    items.write_parquet(folder / "items")
    users = {"fit_users": fit["user_id"].n_unique(), "gate_users": gate["user_id"].n_unique()}
    print(
        f"build_sequences: {fit.height:,} fit baskets before {recipe.gate_start}, "
        f"{gate.height:,} gate baskets before {recipe.as_of}, catalogue {items.height:,} items",
        flush=True,
    )
    return {
        "rows": baskets.height,
        "fit_baskets": fit.height,
        "gate_baskets": gate.height,
        **users,
        "catalogue": items.height,
        "first_day": str(baskets["day"].min()),
        "last_day": str(baskets["day"].max()),
    }
