"""A small world of baskets and items for the tests of the feature store, and a plain oracle of its histories."""

import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import yaml

from sidrec import home
from sidrec.clock import DAY_S, day_start
from sidrec.recipe import Recipe, parse_recipe

AS_OF = date(2010, 12, 1)
GATE_START = AS_OF - timedelta(days=30)
FIRST_DAY = date(2010, 8, 1)
CAP = 12


def recipe(**features: object) -> Recipe:
    """Return a recipe whose feature section is `features`."""
    values = {
        "name": "feature_world",
        "kind": "popularity",
        "as_of": AS_OF.isoformat(),
        "gate_days": 30,
        "data": {"adapter": "online_retail", "events": "unused.parquet"},
        "validation": {},
        "features": {"history_cap": CAP, **features},
        "embedding": {},
        "decoding": {},
        "evaluation": {"floors": ["global_popularity"]},
        "gates": {"floor": "global_popularity"},
        "serving": {},
        "monitoring": {},
    }
    return parse_recipe(yaml.safe_dump(values))


def baskets(num_users: int = 40, num_items: int = 30, seed: int = 0) -> pl.DataFrame:
    """Return random baskets before `AS_OF`; some lie at midnight, some in the last second of their day."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_users):
        days = sorted(rng.sample(range((AS_OF - FIRST_DAY).days), rng.randint(1, 12)))
        for offset in days:
            day = FIRST_DAY + timedelta(days=offset)
            second = rng.choice([0, DAY_S - 1, rng.randrange(DAY_S)])
            # Larger than the cap now and then.
            size = rng.choice([1, 2, 3, 5, 8, CAP, CAP + 5])
            items = [f"item-{item:02d}" for item in rng.sample(range(num_items), size)]
            rows.append(
                {
                    "user_id": f"user-{number:03d} é",
                    "day": day,
                    "time": day_start(day) + second,
                    "item_ids": items,
                }
            )
    return pl.DataFrame(rows, schema_overrides={"day": pl.Date}).sort("user_id", "day")


def items(num_items: int = 30) -> pl.DataFrame:
    """Return a catalogue with text columns that are null, lists, or missing."""
    return pl.DataFrame(
        {
            "item_id": [f"item-{item:02d}" for item in range(num_items)],
            "title": [f"TITLE {item} Ü" for item in range(num_items)],
            "brand": [None] * num_items,
            "popularity": list(range(num_items)),
            "recent_popularity": [0] * num_items,
            "first_sold": [FIRST_DAY] * num_items,
        },
        schema_overrides={"brand": pl.Null},
    )


def write_inputs(folder: Path, basket_rows: pl.DataFrame, item_rows: pl.DataFrame) -> dict[str, Path]:
    """Write the step's inputs as an earlier step would and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"baskets": folder / "baskets", "items": folder / "items"}
    basket_rows.write_parquet(paths["baskets"])
    item_rows.write_parquet(paths["items"])
    return paths


def history_by_hand(rows: Sequence[dict[str, object]], user_id: str, before: date, cap: int) -> list[tuple[str, int]]:
    """Return a user's capped history of the days before `before`, by a loop over every basket."""
    mine = [row for row in rows if row["user_id"] == user_id and row["day"] < before]  # type: ignore[operator]
    mine.sort(key=lambda row: row["day"], reverse=True)  # type: ignore[arg-type, return-value]
    history: list[tuple[str, int]] = []
    for position, row in enumerate(mine):
        basket = [(str(item_id), int(row["time"])) for item_id in row["item_ids"]]  # type: ignore[attr-defined, call-overload]
        if position == 0:
            basket = basket[-cap:]
        if len(history) + len(basket) > cap:
            break
        history = basket + history
    return history


def make_store(folder: Path, basket_rows: pl.DataFrame | None = None, key: str = "a" * 64, **features: object) -> Path:
    """Run the step in `SIDREC_HOME` and return its folder."""
    from components.materialize_features.run import run

    step_folder = home.steps_dir() / "materialize_features" / key
    step_folder.mkdir(parents=True, exist_ok=True)
    inputs = write_inputs(folder, baskets() if basket_rows is None else basket_rows, items())
    run(recipe(**features), inputs, step_folder)
    return step_folder
