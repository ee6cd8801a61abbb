"""Windows of unchanged traffic: customers drawn again, with all that a report counts of them.

A customer's requests hang together, so customers are drawn, not requests: of a random half as the reference, of the
other half, with replacement, as the window. Counts are kept by customer once; a window is a weighted sum of them.

Axes: `customer` rows, `key` columns (kind and value of a histogram).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from monitoring import aggregate, counting, labels
from monitoring.readings import CodeSpace

Ints = NDArray[np.int64]

TAKEN = "taken_item"
QUALITY_N, QUALITY_TOTAL = "quality_n", "quality_total"


@dataclass(frozen=True)
class Customers:
    """What each customer's rows hold, as a sparse matrix of counts [customer, key]."""

    kinds: list[str]
    keys: list[str]
    counts: csr_matrix
    rows: Ints
    """[customer], requests, or purchases."""

    def table(self, drawn: Ints) -> pl.DataFrame:
        """Return the counts (`aggregate.SCHEMA`) of customers drawn so many times each [customer]."""
        total = np.asarray(drawn @ self.counts).ravel()
        used = np.flatnonzero(total)
        values = {
            "kind": [self.kinds[key] for key in used],
            "key": [self.keys[key] for key in used],
            "count": total[used],
        }
        return pl.DataFrame(values, schema=aggregate.SCHEMA)


def customers_of(table: pl.DataFrame, rows: Mapping[int, int]) -> Customers:
    """Return customers out of rows (part, kind, key, count), `part` their number.

    Args:
        rows: requests or purchases by number.
    """
    columns = table.select("kind", "key").unique().sort("kind", "key").with_row_index("column")
    cells = table.join(columns, on=["kind", "key"]).group_by("part", "column").agg(pl.col("count").sum())
    size = (max(rows) + 1, columns.height)
    counts = csr_matrix((cells["count"].to_numpy(), (cells["part"].to_numpy(), cells["column"].to_numpy())), shape=size)
    number = np.zeros(size[0], dtype=np.int64)
    number[list(rows)] = list(rows.values())
    return Customers(columns["kind"].to_list(), columns["key"].to_list(), counts, number)


def requesting_customers(
    exposures: pl.DataFrame, outcomes: pl.LazyFrame, space: CodeSpace | None, *, watermark: int
) -> Customers:
    """Return the customers of one bundle's distinct requests, with everything that a report counts of them."""
    users = pl.coalesce("user_id", "request_id").rank("dense").cast(pl.Int32) - 1
    own = exposures.with_columns(part=users)
    orders = {} if space is None else {space.bundle_id: counting.tie_order(space.catalogue)}
    histograms, items = counting.count_piece(own, orders)
    matcher = labels.Matcher(outcomes)
    matcher.add(own)
    taken = matcher.attribution(own.height).hits.join(own.select("request_id", "part"), on="request_id")
    quality = labels.quality(own, matcher.events, by=counting.BY, watermark=watermark)
    columns = ["part", "kind", "key", "count"]
    parts = [
        histograms.select(columns),
        items.select("part", pl.lit(aggregate.SERVED).alias("kind"), key="item_id", count="count"),
        taken.group_by("part", key="item_id").agg(count=pl.len().cast(pl.Int64)).with_columns(kind=pl.lit(TAKEN)),
        quality.select("part", pl.lit(QUALITY_N).alias("kind"), key="name", count="n"),
        quality.select(
            "part",
            pl.lit(QUALITY_TOTAL).alias("kind"),
            key="name",
            count=(pl.col("total") * 1e6).round(0).cast(pl.Int64),
        ),
    ]
    table = pl.concat([part.select(columns) for part in parts])
    return customers_of(table, dict(own.group_by("part").len().iter_rows()))


def buying_customers(purchases: pl.DataFrame) -> Customers:
    """Return the customers of purchases, one row a customer, day and item."""
    own = purchases.with_columns(part=pl.col("user_id").rank("dense").cast(pl.Int32) - 1)
    table = own.group_by("part", key="item_id").agg(count=pl.len().cast(pl.Int64))
    counted = table.with_columns(kind=pl.lit(aggregate.BOUGHT)).select("part", "kind", "key", "count")
    return customers_of(counted, dict(own.group_by("part").len().iter_rows()))


def draw_window(customers: Customers, rows: int, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the counts of a window of some `rows` rows and of its reference, of different customers."""
    number = len(customers.rows)
    side = rng.permutation(number)
    first, second = side[: number // 2], side[number // 2 :]
    reference = np.zeros(number, dtype=np.int64)
    reference[first] = 1
    mean = max(customers.rows[second].mean(), 1e-9)
    chosen = second[rng.integers(0, len(second), max(1, round(rows / mean)))]
    return customers.table(np.bincount(chosen, minlength=number)), customers.table(reference)


def sampled(requests: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return at most about so many requests, whole customers chosen by the hash of their ids."""
    kept = max(1, -(-requests.height // most))
    return requests if kept == 1 else requests.filter(pl.coalesce("user_id", "request_id").hash(0) % kept == 0)
