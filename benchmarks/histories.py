"""What a fit's histories cost: writing them once, and then a batch drawn from the map and what the process holds.

Inputs are baskets as `build_sequences` leaves them: users of ten baskets on average, a basket of two items. Memory is
private bytes, for pages of a map are the machine's.
"""

import gc
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.memory import PrivatePeak, private_bytes

if TYPE_CHECKING:
    from sidrec.data.catalog import Catalog

ITEMS, BASKETS, FIT_DAY = 10_000, 10, 15_000
BATCH, STEPS = 256, 40
# Users whose histories are made into arrays, to say what the map spares; each event is of one user.
_HELD = 10_000
_CHUNK = 100_000

Cost = dict[str, Any]


def write_baskets(count: int, folder: Path) -> None:
    """Write a table of so many events, about, some users in memory at a time."""
    from pyarrow import parquet

    writer = None
    users = max(count // (2 * BASKETS), 500)
    for first in range(0, users, _CHUNK):
        arrow = _some(first, min(_CHUNK, users - first)).to_arrow()
        writer = writer or parquet.ParquetWriter(folder / "baskets.parquet", arrow.schema)
        # In row groups as polars writes them.
        writer.write_table(arrow, row_group_size=1 << 18)
    assert writer is not None
    writer.close()


def histories_written(count: int, folder: Path) -> Cost:
    """Write the columns that ranks map, from the table and the item ids."""
    import polars as pl

    from sidrec.systems.stored_histories import open_histories, write_histories

    catalog, table = _catalog(), pl.scan_parquet(folder / "baskets.parquet")
    with PrivatePeak() as peak:
        started = time.process_time()
        write_histories(table, catalog, folder / "histories")
        seconds = time.process_time() - started
    events = len(open_histories(folder / "histories").items)
    size = sum(path.stat().st_size for path in (folder / "histories").iterdir())
    return {"seconds": seconds, "added": peak.bytes, "events": events, "file MB": round(size / 1e6, 1)}


def training_batch(count: int, folder: Path) -> Cost:
    """Draw batches of an epoch from the map, as every rank does; the time is of one batch of 256 users."""
    from sidrec.systems.batches import Sampling, TrainingSet
    from sidrec.systems.stored_histories import open_histories

    sampling = Sampling(
        batch_users=BATCH,
        targets=4,
        item_dropout=0.2,
        max_positions=32,
        flatten=0,
        repeat_weight=0.5,
        half_life_days=60.0,
        prior_delay_days=28,
        split_share=0.1,
    )
    before = private_bytes()
    data = TrainingSet(open_histories(folder / "histories"), sampling, fit_day=FIT_DAY, seed=0)
    taken: list[float] = []
    # Batches are of users of like length, so a few in a row say little; an epoch of fewer goes on in the next.
    epochs = (batch for epoch in range(STEPS) for batch in data.batches(epoch))
    for _ in range(STEPS):
        started = time.process_time()
        next(epochs)
        taken.append(time.process_time() - started)
    held = private_bytes() - before
    arrays = private_bytes()
    own = data.histories[:_HELD]
    arrays = private_bytes() - arrays
    gc.collect()
    return {
        "seconds": statistics.median(taken),
        "added": held,
        "users": len(data.histories),
        "B held a user": round(held / len(data.histories), 1),
        "B a user as arrays": round(arrays / len(own)),
    }


def _some(first: int, users: int) -> Any:
    """Return the baskets of some users, by user and day; items as popular as 1 / rank."""
    import polars as pl

    rng = np.random.default_rng(first)
    sizes = rng.integers(2, 2 * BASKETS - 1, users)
    count = int(sizes.sum())
    place = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    per = rng.integers(1, 4, count)
    items = np.minimum(np.exp(rng.uniform(0, np.log(ITEMS), int(per.sum()))).astype(np.int64), ITEMS - 1)
    lines = pl.DataFrame({"basket": np.repeat(np.arange(count), per), "item_ids": np.array(_item_ids())[items]})
    return pl.DataFrame(
        {
            "user_id": pl.Series(first + np.repeat(np.arange(users), sizes)).cast(pl.String).str.pad_start(9, "0"),
            "day": pl.Series((14_800 + place * 7 + rng.integers(0, 7, count)).astype(np.int32)).cast(pl.Date),
            "item_ids": lines.group_by("basket", maintain_order=True).agg("item_ids")["item_ids"],
        }
    )


def _item_ids() -> list[str]:
    return [f"i{row:05d}" for row in range(ITEMS)]


def _catalog() -> "Catalog":
    import polars as pl

    from sidrec.data.catalog import Catalog

    counts = [1] * ITEMS
    items = pl.DataFrame(
        {"item_id": _item_ids(), "title": _item_ids(), "popularity": counts, "recent_popularity": counts}
    )
    return Catalog.build(items, np.arange(ITEMS, dtype=np.int32)[:, None])
