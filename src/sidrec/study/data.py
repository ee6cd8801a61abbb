"""What a cell of a study reads: who is judged on what, and what a model may learn from.

Axes: `row` judged targets, `item` catalogue.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from sidrec import files
from sidrec.clock import day_start
from sidrec.data.adapters import open_adapter
from sidrec.data.baskets import build_baskets, build_items
from sidrec.data.history import running_histories
from sidrec.data.ingest import clean_tables
from sidrec.errors import UsageError
from sidrec.evaluation.protocol import NextBasket, TargetKind, Targets, next_basket_v1
from sidrec.evaluation.sequences import ROWS_HISTORY, leave_one_out, read_sequences, temporal, training_table
from sidrec.recipe import CodebookRecipe, Recipe, RepeatRecipe

DATA_VARIABLE = "SIDREC_BENCH_DATA"
Target = Literal["valid", "test"]


@dataclass(frozen=True, eq=False)
class StudyData:
    """Rows to judge, and baskets, items and training rows of the fit period."""

    protocol: NextBasket
    targets: Mapping[TargetKind, Targets]
    baskets: pl.DataFrame
    items: pl.DataFrame
    training_set: pl.DataFrame
    fit_end: date
    digest: str
    """Of the files that were read."""
    name: str


def study_data(recipe: Recipe, target: Target) -> StudyData:
    """Return the data of a recipe's protocol.

    Raises:
        UsageError: the files are not here, or the recipe wants what its protocol does not have.
    """
    if recipe.evaluation.protocol == "next_basket_v1":
        return _baskets(recipe, target)
    return _sequences(recipe, target)


def events_path(recipe: Recipe) -> Path:
    """Return where the recipe's events lie; what is not there is looked for under `SIDREC_BENCH_DATA`.

    Raises:
        UsageError: it is in neither place.
    """
    path = recipe.data.events
    root = os.environ.get(DATA_VARIABLE)
    if not path.exists() and root:
        path = Path(root) / path
    if not path.exists():
        raise UsageError(
            f"{recipe.data.events} is neither here nor under {DATA_VARIABLE} ({root or 'not set'})",
            next_step=f"give --data, or set {DATA_VARIABLE} to the folder that holds it",
        )
    return path


def _sequences(recipe: Recipe, target: Target) -> StudyData:
    evaluation = recipe.evaluation
    if isinstance(recipe, RepeatRecipe) and recipe.repeat.enabled:
        raise UsageError(
            f"the repeat path is learnt on days of baskets, and {evaluation.protocol} has none",
            next_step="set repeat.enabled: false",
        )
    folder = events_path(recipe)
    assert evaluation.protocol != "next_basket_v1"
    events, items = read_sequences(folder, ties=evaluation.ties, split=evaluation.protocol)
    if evaluation.protocol == "leave_one_out":
        protocol = leave_one_out(events, items, target=target, max_history=evaluation.max_history)
    else:
        limit = ROWS_HISTORY if evaluation.protocol == "rows" else evaluation.max_history
        protocol = temporal(events, items, target=target, max_history=limit)
    baskets = training_table(events)
    counted = items.join(
        baskets.explode("item_ids").group_by("item_ids").agg(popularity=pl.len()),
        left_on="item_id",
        right_on="item_ids",
        how="left",
        maintain_order="left",
    ).with_columns(pl.col("popularity").fill_null(0))
    last = baskets.select(pl.col("day").max()).item()
    return StudyData(
        protocol=protocol,
        targets={"all": protocol.targets("all")},
        baskets=baskets,
        items=counted.with_columns(recent_popularity=pl.col("popularity")),
        training_set=pl.DataFrame(),
        fit_end=last + timedelta(days=1),
        digest=_digest([folder / "interactions.parquet", folder / "items.parquet"]),
        name=folder.name,
    )


def _baskets(recipe: Recipe, target: Target) -> StudyData:
    """Return the gate window as test; as valid, the validation days before it, with the fit ending before those."""
    path = events_path(recipe)
    as_of, start = recipe.as_of, recipe.gate_start
    if target == "valid":
        days = recipe.training.validation_days if isinstance(recipe, CodebookRecipe) else 31
        as_of, start = start, start - timedelta(days=days)
    data = recipe.data.model_copy(update={"events": path})
    cleaned = clean_tables(data, as_of=as_of, gate_start=start, watermark=data.watermark)
    before = pl.col("timestamp") < day_start(as_of)
    baskets = build_baskets(cleaned.events.filter(before), as_of)
    items = build_items(cleaned.sales.filter(before), cleaned.items_raw, baskets, start)
    protocol = next_basket_v1(baskets, items, gate_start=start, as_of=as_of)
    fit = baskets.filter(pl.col("day") < start)
    return StudyData(
        protocol=protocol,
        targets={"all": protocol.targets("all"), "novel": protocol.targets("novel")},
        baskets=fit,
        items=items,
        training_set=training_rows(fit, start, days=recipe.features.training_set_days, cap=recipe.features.history_cap),
        fit_end=start,
        digest=_digest(sorted(open_adapter(data, as_of).paths().values())),
        name=path.stem,
    )


def training_rows(baskets: pl.DataFrame, end: date, *, days: int, cap: int) -> pl.DataFrame:
    """Return a row for each repeat basket of the last `days` before `end`, with the capped history before it.

    It is what the feature store's point-in-time join gives (`components/materialize_features`), without the store.
    """
    first = end - timedelta(days=days)
    rows = []
    for own in baskets.sort("user_id", "day").partition_by("user_id", maintain_order=True):
        records = own.to_dicts()
        histories = running_histories(((row["time"], row["item_ids"]) for row in records), cap)
        for history, row in zip(histories, records[1:], strict=False):
            if first <= row["day"] < end:
                rows.append(
                    {
                        "user_id": row["user_id"],
                        "day": row["day"],
                        "history_item_ids": [item for item, _ in history],
                        "history_times": [time for _, time in history],
                        "target_item_ids": row["item_ids"],
                    }
                )
    return pl.DataFrame(rows, schema=_TRAINING_ROWS)


_TRAINING_ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "day": pl.Date,
    "history_item_ids": pl.List(pl.String),
    "history_times": pl.List(pl.Int64),
    "target_item_ids": pl.List(pl.String),
}


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{files.sha256_file(path)}\0".encode())
    return digest.hexdigest()
