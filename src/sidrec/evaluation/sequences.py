"""Protocols of ordered single-item events: leave-one-out and a split by time, as `NextBasket` tables.

Every event is a basket of its own and its position stands for the day, so one position further back is one day older:
a history that fades by 0.7 an event has a half-life of ln 2 / ln(1 / 0.7).
"""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sidrec.clock import DAY_S
from sidrec.errors import CheckFailedError, UsageError
from sidrec.evaluation.protocol import NextBasket

Target = Literal["valid", "test"]
Ties = Literal["published", "shuffled"]
SplitName = Literal["leave_one_out", "temporal", "rows"]

SPLITS = ("train", "valid", "test")
"""In the order in which a user goes through them; the first is what models learn from."""
ROWS_HISTORY = 10
"""`max_history` of published rows (`split="rows"`)."""

EVENT_SCHEMA = pl.Schema({"user_id": pl.String, "item_id": pl.String, "position": pl.Int64, "split": pl.String})


def leave_one_out(
    events: pl.DataFrame, items: pl.DataFrame, *, target: Target, max_history: int | None = None
) -> NextBasket:
    """Return one row a user: the event of split `target`, with every event before it as history.

    A test row sees its user's validation event; nothing but split `train` may be learnt from.

    Args:
        events: one row an event, with `user_id`, `item_id`, `position` (order within the user) and `split`.
        items: the catalogue; its row order is the item index.
        max_history: newest events that a row may look at; None for all.

    Raises:
        CheckFailedError: the events contradict the protocol, or no user has a target with a history.
    """
    events = _ordered(events)
    several = events.filter(pl.col("split") == target).group_by("user_id").len().filter(pl.col("len") > 1)
    if several.height:
        raise CheckFailedError(
            f"{several.height} users have more than one event of split {target} "
            f"(first: {min(several['user_id'].to_list())}); leave-one-out has one a user",
            next_step="judge these events with `temporal`",
        )
    return _next_event(events, items, target=target, max_history=max_history)


def temporal(
    events: pl.DataFrame, items: pl.DataFrame, *, target: Target, max_history: int | None = None
) -> NextBasket:
    """Return a row for every event of split `target` that has an earlier one of its user: several rows a user.

    A row's history is all that lies before it, earlier targets included; nothing but split `train` may be learnt from.
    A user is cold who has targets and no row. Rows of one user are not independent: intervals over rows are too narrow.

    Args:
        events: one row an event, with `user_id`, `item_id`, `position` (order within the user) and `split`.
        items: the catalogue; its row order is the item index.
        max_history: newest events that a row may look at; None for all.

    Raises:
        CheckFailedError: the events contradict the protocol, or no target has a history.
    """
    return _next_event(_ordered(events), items, target=target, max_history=max_history)


def training_table(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events of split `train` as baskets of one item, the form that systems learn from.

    `day` and `time` count positions as days from 1970-01-01, as the protocols here do.
    """
    train = _ordered(events).filter(pl.col("split") == SPLITS[0])
    return train.select(
        "user_id",
        day=pl.col("position").cast(pl.Int32).cast(pl.Date),
        time=pl.col("position") * DAY_S,
        item_ids=pl.concat_list("item_id"),
    )


def read_sequences(folder: Path, *, ties: Ties, split: SplitName) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return events and items of a folder of `interactions.parquet` and `items.parquet`.

    Args:
        ties: the order of events with equal timestamps: as published, or by a seeded shuffle.
        split: `leave_one_out`, `temporal` (global, by time), or `rows`: the targets of `eval_rows.parquet`, for
            `temporal` with `max_history=ROWS_HISTORY`.

    Raises:
        UsageError: a file is missing, or this data set has no such order or split.
        CheckFailedError: the interactions' targets are not those of `eval_rows.parquet`.
    """
    if split == "rows" and ties == "shuffled":
        raise UsageError("published rows have the published order", next_step='read them with ties="published"')
    columns = {
        "position": "seq_pos" if ties == "published" else "seq_pos_shuf",
        "split": "split_temporal" if split == "temporal" else "split" if ties == "published" else "split_shuf",
    }
    path = folder / "interactions.parquet"
    frame = _read(path)
    for wanted, column in columns.items():
        empty = frame.height if column not in frame.columns else frame[column].null_count()
        if empty:
            raise UsageError(
                f"{folder.name} has no {wanted} for ties={ties!r}, split={split!r}: "
                f"column {column} is empty in {empty} of {frame.height} events",
                evidence=path,
                next_step='data without timestamps have ties="published" and split="leave_one_out" or "rows" only',
            )
    events = frame.select("user_id", "item_id", position=columns["position"], split=columns["split"])
    events = events.match_to_schema(EVENT_SCHEMA, integer_cast="upcast")
    if split == "rows":
        _check_rows(events, folder / "eval_rows.parquet")
    return events, _read(folder / "items.parquet")


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise UsageError(f"{path} is missing", next_step="name the folder of a sequence data set")
    return pl.read_parquet(path)


def _check_rows(events: pl.DataFrame, path: Path) -> None:
    """Raise unless the events of splits valid and test are the published targets, each as often."""
    keys = ["split", "user_id", "item_id"]
    published = _read(path).group_by(keys).agg(published=pl.len())
    ours = events.filter(pl.col("split") != SPLITS[0]).group_by(keys).agg(ours=pl.len())
    unlike = ours.join(published, on=keys, how="full", coalesce=True).filter(
        pl.col("ours").ne_missing(pl.col("published"))
    )
    if unlike.height:
        raise CheckFailedError(
            f"{unlike.height} targets differ from the published rows (first: {unlike.sort(keys).row(0)})",
            evidence=path,
            next_step="fetch interactions.parquet and eval_rows.parquet of one version of the data set",
        )


def _ordered(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events by user and position.

    Raises:
        CheckFailedError: a position is missing or double, a split is unknown, or splits go back in a user's order.
    """
    events = events.select(EVENT_SCHEMA.names()).sort("user_id", "position")
    strange = events.filter(~pl.col("split").is_in(SPLITS) | pl.col("split").is_null())
    if strange.height:
        raise CheckFailedError(
            f"{strange.height} events have a split that is none of {', '.join(SPLITS)} (first: {strange.row(0)})"
        )
    before = events.shift(1)
    same = events["user_id"] == before["user_id"]
    double = events.filter(pl.col("position").is_null() | (same & (events["position"] == before["position"])))
    if double.height:
        raise CheckFailedError(
            f"{double.height} events have no position of their own within their user (first: {double.row(0)})",
            next_step="number a user's events in their order, each number once",
        )
    stage = pl.col("split").replace_strict({name: number for number, name in enumerate(SPLITS)})
    back = events.filter(same & (events.select(stage).to_series() < before.select(stage).to_series()))
    if back.height:
        raise CheckFailedError(
            f"{back.height} events follow one of a later split (first: {back.row(0)}): "
            f"a user's events must go through {', '.join(SPLITS)} in this order, or the future is learnt from",
            next_step="cut every user's events by one order",
        )
    return events


def _next_event(events: pl.DataFrame, items: pl.DataFrame, *, target: Target, max_history: int | None) -> NextBasket:
    if max_history is not None and max_history < 1:
        raise UsageError(f"max_history is {max_history}; a row looks at 1 event or more")
    index = {item_id: number for number, item_id in enumerate(items["item_id"].to_list())}
    if len(index) != items.height:
        raise CheckFailedError(f"{items.height} rows of items hold only {len(index)} different item_id")
    item = events["item_id"].replace_strict(index, default=-1, return_dtype=pl.Int64).to_numpy()
    user_ids, user = np.unique(events["user_id"].to_numpy().astype(str), return_inverse=True)
    position = events["position"].to_numpy()
    fit = (events["split"] == SPLITS[0]).to_numpy()
    first = np.searchsorted(user, user)

    wanted = np.flatnonzero((events["split"] == target).to_numpy())
    rows = wanted[wanted > first[wanted]]
    if not len(rows):
        raise CheckFailedError(
            f"none of the {len(wanted)} events of split {target} has an earlier one of its user",
            next_step="check the split of the events",
        )
    popularity = np.bincount(item[fit & (item >= 0)], minlength=len(index))
    return NextBasket(
        item_ids=tuple(index),
        user_ids=tuple(str(value) for value in user_ids),
        basket_user=user.astype(np.int64),
        basket_day=position,
        basket_time=position * DAY_S,
        offsets=np.arange(len(item) + 1, dtype=np.int64),
        events=item,
        popularity=popularity,
        # Positions of different users are no common calendar: there is no recent period.
        recent_popularity=popularity,
        gate_day=int(position[fit].max(initial=-1)) + 1,
        fit=fit,
        row_basket=rows,
        row_first=first[rows] if max_history is None else np.maximum(first[rows], rows - max_history),
        cold_users=len(np.setdiff1d(user[wanted], user[rows])),
    )
