"""Weeks of unchanged traffic of two arms, and faults that are put into the last of them."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from monitoring import thresholds
from sidrec import exposure, home, outcome
from sidrec.clock import DAY_S, day_start
from tests.monitoring.drift_world import BUNDLE_ID, World

MONDAY = date(2010, 11, 1)
WEEKS = 8
ARMS = {"control": BUNDLE_ID, "treatment": "b-fedcba987654"}
ITEMS = 16
K = 4
PER_WEEK = 1_200

Fault = Callable[[pl.DataFrame], pl.DataFrame]


def second_bundle(world: World) -> Path:
    """Return the folder of the treatment's bundle, which has the same catalogue."""
    folder = world.bundle.parent / "treatment"
    folder.mkdir()
    (folder / "catalogue.parquet").write_bytes((world.bundle / "catalogue.parquet").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({"bundle_id": ARMS["treatment"]}))
    return folder


@cache
def requests(seed: int = 0) -> pl.DataFrame:
    """Return eight weeks of requests: 1,200 a week of 400 users, half of them in each arm, four items of 16 shown."""
    rng = np.random.default_rng(seed)
    count = WEEKS * PER_WEEK
    week = np.repeat(np.arange(WEEKS), PER_WEEK)
    first = day_start(MONDAY - timedelta(weeks=WEEKS - 1))
    times = first + week * 7 * DAY_S + rng.integers(0, 7 * DAY_S, count)
    users = rng.integers(0, 400, count)
    arm = np.array(list(ARMS))[users % 2]
    weights = 1 / np.arange(1, ITEMS + 1) ** 0.5
    shown = np.array([rng.choice(ITEMS, K, replace=False, p=weights / weights.sum()) for _ in range(count)])
    length = 1 + rng.poisson(20, count)
    rows = {
        "schema_version": [exposure.SCHEMA_VERSION] * count,
        "request_id": [f"r{number}" for number in range(count)],
        "user_id": [f"u{user}" for user in users],
        "wall_time_ms": times * 1000,
        "event_time": times,
        "arm": arm,
        "bundle_id": [ARMS[one] for one in arm],
        "revision": [1] * count,
        "experiment": [None] * count,
        "surface": [None] * count,
        "k": [K] * count,
        "exclude_seen": [False] * count,
        "history_source": ["store"] * count,
        "history_length": length,
        "known_items": length - 1,
        "item_ids": [[f"i{item}" for item in row] for row in shown],
        "semantic_ids": [[[item % 4, item // 4] for item in row.tolist()] for row in shown],
        "scores": (-np.arange(1, K + 1) - rng.normal(0, 1, (count, 1))).tolist(),
        "source": ["model"] * count,
        "feature_age_s": (rng.exponential(3 * DAY_S, count)).astype(np.int64),
        "latency_ms": rng.gamma(4, 2, count),
        "beam_width": [50] * count,
        "valid_beams": [50] * count,
        "group_size": [1] * count,
        "stats": [[]] * count,
    }
    # Columns of the log that monitoring does not read are null.
    known = {name: kind for name, kind in exposure.SCHEMA.items() if name in rows}
    table = pl.DataFrame(rows, schema_overrides=known)
    return pl.concat([exposure.SCHEMA.to_frame(), table], how="diagonal").sort("event_time")


def purchases(seed: int = 0, shock: float = 0.0) -> pl.DataFrame:
    """Return 1,200 purchases a week, even over items; in the newest week a share of them are of one item."""
    rng = np.random.default_rng(seed + 1)
    count = WEEKS * PER_WEEK
    week = np.repeat(np.arange(WEEKS), PER_WEEK)
    times = day_start(MONDAY - timedelta(weeks=WEEKS - 1)) + week * 7 * DAY_S + rng.integers(0, 7 * DAY_S, count)
    items = np.where((week == WEEKS - 1) & (rng.random(count) < shock), 3, rng.integers(0, ITEMS, count))
    rows = {
        "schema_version": [outcome.SCHEMA_VERSION] * count,
        "event_id": [f"e{number}" for number in range(count)],
        "user_id": [f"u{user}" for user in rng.integers(0, 100_000, count)],
        "item_id": [f"i{item}" for item in items],
        "event_type": ["purchase"] * count,
        "event_time": times,
        "request_id": [None] * count,
    }
    return pl.DataFrame(rows, schema_overrides=outcome.SCHEMA).select(list(outcome.SCHEMA))


def write(exposures: pl.DataFrame, outcomes: pl.DataFrame) -> None:
    """Write both logs of this test, and thresholds that ask for as few rows as there are."""
    for folder, table in ((home.exposures_dir(), exposures), (home.outcomes_dir(), outcomes)):
        (folder / "2010-11-01").mkdir(parents=True)
        table.write_parquet(folder / "2010-11-01" / "0.parquet")
    shipped = thresholds.load(thresholds.SHIPPED)
    rules = {key: rule.model_copy(update={"min_n": min(rule.min_n, 200)}) for key, rule in shipped.rules.items()}
    thresholds.save(shipped.model_copy(update={"rules": rules}), thresholds.local_path())


def in_last_weeks(fault: Fault, weeks: int = 2, arm: str | None = None) -> Fault:
    """Return a fault that touches only the newest weeks, and only one arm."""

    def touched(table: pl.DataFrame) -> pl.DataFrame:
        since = day_start(MONDAY - timedelta(weeks=weeks - 1))
        hit = pl.col("event_time") >= since if arm is None else (pl.col("event_time") >= since) & (pl.col("arm") == arm)
        changed = fault(table.filter(hit))
        return pl.concat([table.filter(~hit), changed.select(table.columns).cast(exposure.SCHEMA)]).sort("event_time")

    return touched


def codes_collapse(table: pl.DataFrame) -> pl.DataFrame:
    """Every answer is of the four items that share their first code."""
    shown = [0, 4, 8, 12]
    return table.with_columns(
        item_ids=pl.lit([f"i{item}" for item in shown]),
        semantic_ids=pl.lit([[item % 4, item // 4] for item in shown]),
    )


def columns_swapped(table: pl.DataFrame) -> pl.DataFrame:
    """History lengths stand where ages in days are expected, and the other way round."""
    return table.with_columns(
        history_length=pl.col("feature_age_s") // DAY_S, feature_age_s=pl.col("history_length").cast(pl.Int64) * DAY_S
    )


def features_stale(table: pl.DataFrame) -> pl.DataFrame:
    """Nothing fresh has arrived for ten days."""
    return table.with_columns(feature_age_s=pl.col("feature_age_s") + 10 * DAY_S)


def scores_tied(table: pl.DataFrame) -> pl.DataFrame:
    """The first two items of an answer have one score, and stand in their order: the earlier in the catalogue first."""
    ordered = [sorted(row[:2], key=lambda item: int(item[1:])) + row[2:] for row in table["item_ids"].to_list()]
    tied = [[row[0], row[0], *row[2:]] for row in table["scores"].to_list()]
    changed = table.with_columns(
        item_ids=pl.Series(ordered),
        semantic_ids=pl.Series([[[int(item[1:]) % 4, int(item[1:]) // 4] for item in row] for row in ordered]),
        scores=pl.Series(tied, dtype=pl.List(pl.Float32)),
    )
    return changed.cast(exposure.SCHEMA)


def ties_broken(table: pl.DataFrame) -> pl.DataFrame:
    """Of two items with one score the later one in the catalogue stands first."""
    swapped = [[row[1], row[0], *row[2:]] for row in table["item_ids"].to_list()]
    return table.with_columns(item_ids=pl.Series(swapped))


def histories_null(table: pl.DataFrame) -> pl.DataFrame:
    """A tenth of the requests find no history and get a cold answer."""
    lost = pl.Series(np.random.default_rng(6).random(table.height) < 0.1)
    return table.with_columns(
        history_length=pl.when(lost).then(0).otherwise(pl.col("history_length")),
        known_items=pl.when(lost).then(0).otherwise(pl.col("known_items")),
        history_source=pl.when(lost).then(pl.lit("none")).otherwise(pl.col("history_source")),
        feature_age_s=pl.when(lost).then(None).otherwise(pl.col("feature_age_s")),
        source=pl.when(lost).then(pl.lit("cold")).otherwise(pl.col("source")),
    )
