"""The feature store is rebuilt from baskets and items, and the training set is joined out of it point in time."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from components.materialize_features import sources
from feature_repo.push import HISTORY_EVENT_TYPE, push_fresh
from feature_repo.semantic_ids import SCHEMA as SEMANTIC_ID_SCHEMA
from feature_repo.store import (
    MATERIALIZE_LOCK,
    WRITER_LOCK,
    StoreState,
    close_offline_store,
    go_live,
    live_key,
    new_generation,
    open_store,
    sources_dir,
    write_source,
    write_state,
)
from sidrec import home, outcome
from sidrec.clock import day_start
from sidrec.errors import CheckFailedError
from sidrec.process import exclusive
from sidrec.recipe import Recipe

if TYPE_CHECKING:
    from feast import FeatureStore

SECTIONS = ("features", "as_of", "gate_days")

_LOCK_WAIT_S = 600.0
_EPOCH = datetime(1970, 1, 2, tzinfo=UTC)


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `training_set`, make a new generation of the feature store live and return what it holds."""
    features = recipe.features
    baskets = pl.read_parquet(inputs["baskets"]).sort("user_id", "day")
    items = pl.read_parquet(inputs["items"])
    _check_baskets(baskets, recipe.as_of)
    cut = recipe.gate_start if features.online_until == "gate_start" else recipe.as_of
    known = baskets.filter(pl.col("day") < cut)
    feast_dir = home.feast_dir()

    with exclusive(feast_dir / MATERIALIZE_LOCK, "the feature store", wait_s=_LOCK_WAIT_S), _quiet_duckdb():
        _write_sources(known, items, features.history_cap, day_start(recipe.gate_start))
        generation = new_generation(folder.name, ttl_days=features.max_age_days)
        store = open_store(generation)
        training_set = join_training_set(store, baskets, recipe.gate_start, features.training_set_days)
        training_set.write_parquet(folder / "training_set")
        _materialize(store, cut)
        state = StoreState(
            key=folder.name,
            cut=day_start(cut),
            history_cap=features.history_cap,
            max_age_days=features.max_age_days,
            users=known["user_id"].n_unique(),
        )
        with exclusive(feast_dir / WRITER_LOCK, "the feature store's writer", wait_s=_LOCK_WAIT_S):
            carried_over = _carry_over(store, state) if features.online_until == "as_of" else 0
            write_state(generation, state)
            go_live(generation)

    return {
        "rows": training_set.height,
        "users": state.users,
        "items": items.height,
        "history_rows": known.height,
        "known_before": cut.isoformat(),
        "carried_over_users": carried_over,
    }


def still_holds(folder: Path) -> bool:
    """Return whether the live feature store is the one that this step folder's run made."""
    return live_key(home.feast_dir()) == folder.name


def join_training_set(store: "FeatureStore", baskets: pl.DataFrame, gate_start: date, days: int) -> pl.DataFrame:
    """Return a row for each repeat basket of the fit period's last `days`, with the history known the day before.

    Raises:
        CheckFailedError: the join lost or made rows, or let an event of the day itself in.
    """
    import pandas as pd

    first_day = gate_start - timedelta(days=days)
    wanted = (
        baskets.with_columns(number=pl.int_range(pl.len()).over("user_id", order_by="day"))
        .filter((pl.col("day") >= first_day) & (pl.col("day") < gate_start) & (pl.col("number") > 0))
        .select("user_id", "day", target_item_ids="item_ids")
        .with_columns(
            # The last second before the day: Feast's join takes rows stamped at or before this.
            event_timestamp=pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") - pl.duration(seconds=1)
        )
        .sort("user_id", "day")
    )
    if wanted.is_empty():
        return _training_columns(
            wanted.with_columns(
                item_ids=pl.lit(None, dtype=pl.List(pl.String)), times=pl.lit(None, dtype=pl.List(pl.Int64))
            )
        )
    entities = pd.DataFrame(
        {
            "user_id": wanted["user_id"].to_list(),
            "event_timestamp": pd.Series(wanted["event_timestamp"].to_list()).astype("datetime64[us, UTC]"),
        }
    )
    joined = pl.DataFrame(
        store.get_historical_features(entity_df=entities, features=store.get_feature_service("recommend_v1")).to_arrow()
    ).select("user_id", "item_ids", "times", pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
    result = _training_columns(
        wanted.join(joined, on=["user_id", "event_timestamp"], how="left", validate="1:1").sort("user_id", "day")
    )
    _check_training_set(result, wanted, joined.height)
    return result


def _training_columns(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        "user_id",
        "day",
        "event_timestamp",
        history_item_ids="item_ids",
        history_times="times",
        target_item_ids="target_item_ids",
    )


def _check_baskets(baskets: pl.DataFrame, as_of: date) -> None:
    """Refuse baskets that the cut by days would not hold for."""
    faults = {
        "two baskets of one day": baskets.select(pl.struct("user_id", "day").is_duplicated()).to_series(),
        "a time of another day": baskets.select(
            pl.from_epoch("time", time_unit="s").dt.date() != pl.col("day")
        ).to_series(),
        "a day at or after as_of": baskets["day"] >= as_of,
    }
    for fault, rows in faults.items():
        if rows.any():
            first = baskets.filter(rows).row(0, named=True)
            raise CheckFailedError(
                f"{int(rows.sum())} baskets are refused: {fault}, "
                f"the first of user {first['user_id']} on {first['day']}",
                next_step="run build_sequences again: its output breaks its own schema",
            )


def _check_training_set(result: pl.DataFrame, wanted: pl.DataFrame, num_joined: int) -> None:
    if not result.height == wanted.height == num_joined:
        raise CheckFailedError(
            f"the point-in-time join of {wanted.height} rows gave {num_joined} and left {result.height}",
            next_step="feast's offline store changed: run tests/components/test_materialize_features.py",
        )
    if not result["target_item_ids"].equals(wanted["target_item_ids"]):
        raise CheckFailedError("the point-in-time join changed the labels")
    midnight = pl.col("day").cast(pl.Datetime("us")).dt.epoch("s")
    leaking = result.filter(pl.col("history_times").list.max() >= midnight)
    if leaking.height:
        row = leaking.row(0, named=True)
        raise CheckFailedError(
            f"{leaking.height} training rows know an event of their own day or later, "
            f"the first of user {row['user_id']} on {row['day']}"
        )
    without = result.filter(pl.col("history_times").is_null() | (pl.col("history_times").list.len() == 0))
    if without.height:
        row = without.row(0, named=True)
        raise CheckFailedError(
            f"{without.height} training rows have an earlier basket but no history, "
            f"the first of user {row['user_id']} on {row['day']}"
        )


@contextlib.contextmanager
def _quiet_duckdb() -> Iterator[None]:
    import feast  # noqa: F401  it resets the filters when it is imported

    with warnings.catch_warnings():
        # From ibis, about its own call.
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        try:
            yield
        finally:
            close_offline_store()


def _write_sources(known: pl.DataFrame, items: pl.DataFrame, cap: int, known_at: int) -> None:
    write_source("user_history", sources.user_history(known, cap))
    write_source("user_aggregates", sources.user_aggregates(known))
    write_source("item_attributes", sources.item_attributes(items, known_at))
    if not (sources_dir() / "item_semantic_id.parquet").exists():
        write_source("item_semantic_id", SEMANTIC_ID_SCHEMA.to_frame())


def _materialize(store: "FeatureStore", cut: date) -> None:
    """Fill the online store with what was known at the start of the day `cut`."""
    end = datetime(cut.year, cut.month, cut.day, tzinfo=UTC)
    # Semantic IDs are stamped with the wall's time of their publication.
    until = {"user_history": end, "user_aggregates": end, "item_attributes": end, "item_semantic_id": datetime.now(UTC)}
    for view, until_time in until.items():
        if pl.scan_parquet(sources_dir() / f"{view}.parquet").select(pl.len()).collect().item():
            # Feast prints its progress in colour.
            with contextlib.redirect_stdout(io.StringIO()):
                store.materialize(_EPOCH, until_time, feature_views=[view])


def _carry_over(store: "FeatureStore", state: StoreState) -> int:
    """Put the events that were pushed since the cut into the new generation, so no fresh purchase is forgotten."""
    fresh = outcome.read(home.outcomes_dir(), since=state.cut).filter(pl.col("event_type") == HISTORY_EVENT_TYPE)
    return push_fresh(
        store, fresh.select("user_id", "item_id", "event_time").iter_rows(), history_cap=state.history_cap
    )
