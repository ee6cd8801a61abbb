"""Histories that stay in their files: written once a fit, mapped by every rank, held by none.

Pages of a map belong to the file and not to a process: ranks of a machine share them, and the machine takes them back
when it needs the memory. The baskets' table is read a block at a time too.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from sidrec.data.catalog import Catalog
from sidrec.errors import CheckFailedError
from sidrec.quantization.sharding import Shards
from sidrec.systems.history import BLOCK, Histories

FOLDER = "histories"
# The fields of `Histories`, in their order; little-endian and without a header, for a file's size is its length.
COLUMNS = {"items": "<i4", "start": "<i8", "days": "<i4", "first": "<i8"}


def stored_histories(baskets: pl.LazyFrame, catalog: Catalog, folder: Path, shards: Shards | None = None) -> Histories:
    """Return each user's baskets with item indices, mapped from `folder/histories`, which rank 0 writes anew.

    Raises:
        CheckFailedError: another rank does not find what rank 0 wrote.
    """
    target, shards = folder / FOLDER, shards or Shards()
    if shards.rank == 0:
        write_histories(baskets, catalog, target)
    # Ranks wait here for rank 0.
    written = shards.broadcast(torch.tensor(_sizes(target) if shards.rank == 0 else [0] * len(COLUMNS))).tolist()
    if (found := _sizes(target)) != written:
        raise CheckFailedError(
            f"rank {shards.rank} finds histories of {found} bytes in {target}, and rank 0 wrote {written}",
            next_step="put the step's folder where every rank reads it",
        )
    return open_histories(target)


def drop_histories(folder: Path) -> None:
    """Remove what `stored_histories` wrote into a folder; maps of it stay readable on the machine that removes it."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def histories_of(baskets: pl.DataFrame | pl.LazyFrame, catalog: Catalog) -> Histories:
    """Return each user's baskets with item indices in memory, users by id; unknown items are dropped."""
    return Histories.joined(_blocks(baskets.lazy(), catalog))


def write_histories(table: pl.LazyFrame, catalog: Catalog, folder: Path) -> None:
    """Write the columns of `Histories` as files of a folder; maps of older ones stay as they were."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    events = baskets = 0
    with ExitStack() as opened:
        out = {name: opened.enter_context((folder / name).open("wb")) for name in COLUMNS}

        def write(name: str, column: NDArray[Any]) -> None:
            out[name].write(column.astype(COLUMNS[name]).tobytes())

        write("start", np.zeros(1))
        write("first", np.zeros(1))
        for block in _blocks(table, catalog):
            write("items", block.items)
            write("start", block.start[1:] + events)
            write("days", block.days)
            write("first", block.first[1:] + baskets)
            events, baskets = events + len(block.items), baskets + len(block.days)


def open_histories(folder: Path) -> Histories:
    """Return the histories that lie in a folder, mapped and not read."""
    items, start, days, first = (_mapped(folder / name, kind) for name, kind in COLUMNS.items())
    return Histories(items, start, days, first)


def _mapped(path: Path, kind: str) -> NDArray[Any]:
    # There is no map of nothing.
    return np.asarray(np.memmap(path, dtype=kind, mode="r")) if path.stat().st_size else np.empty(0, kind)


def _sizes(folder: Path) -> list[int]:
    """Return the bytes of each column's file, 0 where it is missing."""
    return [path.stat().st_size if (path := folder / name).exists() else 0 for name in COLUMNS]


def _blocks(baskets: pl.LazyFrame, catalog: Catalog) -> Iterator[Histories]:
    """Yield the histories of some users after the other."""
    known = pl.Enum(catalog.item_ids)
    rest: pl.DataFrame | None = None
    for table in _in_order(baskets.select("user_id", "day", "item_ids")).collect_batches(chunk_size=BLOCK):
        rest = table if rest is None else pl.concat([rest, table])
        # The last user's baskets may go on in the next block.
        whole = int((rest["user_id"] != rest["user_id"][-1]).sum()) if len(rest) else 0
        if whole:
            yield _columns(rest[:whole], known)
        rest = rest[whole:]
    if rest is not None:
        yield _columns(rest, known)


def _columns(table: pl.DataFrame, known: pl.Enum) -> Histories:
    """Return the histories of a table's users; unknown items are dropped, and baskets and users that are left empty."""
    lines = table.select(basket=pl.int_range(pl.len()), item="item_ids").explode("item")
    lines = lines.with_columns(pl.col("item").cast(known, strict=False).to_physical()).drop_nulls()
    sizes = np.bincount(lines["basket"].to_numpy(), minlength=len(table))
    kept = sizes > 0
    user = table["user_id"].rle_id().to_numpy()[kept]
    return Histories(
        lines["item"].cast(pl.Int32).to_numpy(),
        np.concatenate([[0], np.cumsum(sizes[kept])]),
        table["day"].cast(pl.Int32).to_numpy()[kept],
        np.append(np.flatnonzero(np.diff(user, prepend=-1)), len(user)),
    )


def _in_order(baskets: pl.LazyFrame) -> pl.LazyFrame:
    """Return the baskets by user and day, as the pipeline's are; others are sorted, which takes memory for all."""
    last: pl.DataFrame | None = None
    for keys in baskets.select("user_id", "day").collect_batches(chunk_size=BLOCK):
        seen = keys if last is None else pl.concat([last, keys])
        user, day = seen["user_id"], seen["day"]
        follows = (user > user.shift()) | ((user == user.shift()) & (day >= day.shift()))
        if not follows[1:].all():
            return baskets.sort("user_id", "day")
        last = seen[-1:]
    return baskets
