"""Baskets and the catalogue; no day on or after `as_of` leaves this step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.data.baskets import build_baskets, build_items
from sidrec.data.engine import open_engine
from sidrec.data.tables import Polars, StoredEngine
from sidrec.errors import CheckFailedError
from sidrec.recipe import Recipe

SECTIONS = ("as_of", "gate_days")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `baskets` and `items`, and return their counts by window.

    Raises:
        CheckFailedError: a window is empty, or the catalogue and its titles differ.
    """
    engine = open_engine()
    counts = _in_memory(recipe, inputs, folder) if isinstance(engine, Polars) else _on(engine, recipe, inputs, folder)
    if not (counts["fit_baskets"] and counts["gate_baskets"]):
        empty = f"in [{recipe.gate_start}, {recipe.as_of})" if counts["fit_baskets"] else f"before {recipe.gate_start}"
        raise CheckFailedError(
            f"no basket {empty}: as_of and gate_days do not fit these data",
            evidence=inputs["events"],
            next_step="set as_of to the day after the last day that may be used",
        )
    titles = counts.pop("titles")
    if counts["catalogue"] != titles:
        raise CheckFailedError(
            f"items_raw has {titles} items, {counts['catalogue']} of them with a sale before "
            f"{recipe.gate_start}: it was made for another as_of",
            evidence=inputs["items_raw"],
        )
    assert counts["last_day"] < str(recipe.as_of)
    print(
        f"build_sequences: {counts['fit_baskets']:,} fit baskets before {recipe.gate_start}, "
        f"{counts['gate_baskets']:,} gate baskets before {recipe.as_of}, catalogue {counts['catalogue']:,} items",
        flush=True,
    )
    return counts


def _in_memory(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    items_raw = pl.read_parquet(inputs["items_raw"])
    baskets = build_baskets(pl.scan_parquet(inputs["events"]), recipe.as_of)
    items = build_items(pl.scan_parquet(inputs["sales"]), items_raw, baskets, recipe.gate_start)
    baskets.write_parquet(folder / "baskets")
    items.write_parquet(folder / "items")
    in_fit = pl.col("day") < recipe.gate_start
    fit, gate = baskets.filter(in_fit), baskets.filter(~in_fit)
    return {
        "rows": baskets.height,
        "fit_baskets": fit.height,
        "gate_baskets": gate.height,
        "fit_users": fit["user_id"].n_unique(),
        "gate_users": gate["user_id"].n_unique(),
        "catalogue": items.height,
        "titles": items_raw.height,
        "first_day": str(baskets["day"].min()),
        "last_day": str(baskets["day"].max()),
    }


def _on(engine: StoredEngine, recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Do the same on an engine that holds no table in memory."""
    from sidrec.data.relations import baskets_of, catalogue_of, window_counts

    events, sales, items_raw = (engine.read(inputs[name]) for name in ("events", "sales", "items_raw"))
    baskets = engine.write(baskets_of(events, recipe.as_of), folder / "baskets")
    items = engine.write(catalogue_of(sales, items_raw, baskets, recipe.gate_start), folder / "items")
    counts = engine.row(window_counts(baskets, recipe.gate_start))
    return {
        "rows": counts["fit_baskets"] + counts["gate_baskets"],
        **{name: counts[name] for name in ("fit_baskets", "gate_baskets", "fit_users", "gate_users")},
        "catalogue": engine.row(items.aggregate(rows=items.count()))["rows"],
        "titles": engine.row(items_raw.aggregate(rows=items_raw.count()))["rows"],
        "first_day": counts["first_day"],
        "last_day": counts["last_day"],
    }
