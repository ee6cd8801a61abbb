"""A window as one small table of counts, whatever the number of requests.

Rows are (kind, key, count). Counts of two windows add up to those of both; nothing downstream reads the log again.
"""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from monitoring import codebook_drift
from monitoring.codebook_drift import Traffic
from sidrec.clock import DAY_S

SCHEMA = pl.Schema({"kind": pl.String, "key": pl.String, "count": pl.Int64})

BOUGHT = "bought_item"
SERVED = "served_item"
COMPARED = "compared_requests"
SERVED_CODES = "served_code/"
SEARCH = "search/"

# Tenths, days and half nats: fine enough to be binned again, coarse enough to stay small.
FEATURES: Mapping[str, pl.Expr] = {
    "history_source": pl.col("history_source"),
    "history_length": pl.col("history_length"),
    "known_share": pl.when(pl.col("history_length") > 0).then(
        (pl.col("known_items") / pl.col("history_length") * 10).round(0) / 10
    ),
    "feature_age_days": pl.col("feature_age_s") // DAY_S,
    "source": pl.col("source"),
    "top_score": pl.when(pl.col("source") == "model").then(
        (pl.col("scores").list.max().cast(pl.Float64) * 2).round(0) / 2
    ),
    "bundle": pl.col("bundle_id"),
}


def usage_kind(traffic: Traffic, level: int) -> str:
    """Return the kind that holds how often each code of a level occurs in one kind of traffic."""
    return f"code/{traffic}/{level}"


def request_counts(requests: pl.LazyFrame, bundle_id: str | None) -> pl.DataFrame:
    """Return how often each value of each feature, each item, and of one bundle each code and search value occurs."""
    total = requests.select(kind=pl.lit(COMPARED), key=pl.lit(""), count=pl.len())
    values = [_counts(requests.select(key=value), kind) for kind, value in FEATURES.items()]
    served = _counts(requests.select(key="item_ids").explode("key"), SERVED)
    searches = search_counts(_of_bundle(requests, bundle_id))
    codes = code_table(SERVED_CODES, served_codes(requests, bundle_id))
    return _table([*pl.collect_all([total, *values, served, searches], engine="streaming"), codes])


def purchase_counts(purchases: pl.LazyFrame) -> pl.DataFrame:
    """Return how often each item was bought (once per user and day)."""
    return _table([_counts(purchases.select(key="item_id"), BOUGHT).collect()])


def usage_counts(served: pl.LazyFrame, purchases: pl.LazyFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Return the code counts of one bundle's catalogue, of what it served and of what was bought.

    Args:
        served: `codes` and `count` of the semantic IDs served.
    """
    codes: Mapping[Traffic, pl.LazyFrame] = {
        "catalogue": catalogue.lazy().select("codes", count=pl.lit(1, dtype=pl.Int64)),
        "served": served.select("codes", "count"),
        "bought": bought_codes(purchases, catalogue),
    }
    return _table([code_table(f"code/{traffic}/", rows) for traffic, rows in codes.items()])


def served_codes(requests: pl.LazyFrame, bundle_id: str | None) -> pl.LazyFrame:
    """Return the semantic IDs that one bundle served and how often each was; another bundle's mean other items."""
    own = _of_bundle(requests, bundle_id)
    served = own.select(codes="semantic_ids").explode("codes").drop_nulls()
    return served.group_by("codes").agg(count=pl.len().cast(pl.Int64))


def bought_codes(purchases: pl.LazyFrame, catalogue: pl.DataFrame) -> pl.LazyFrame:
    """Return the semantic IDs of the items bought; an item outside the catalogue has none and is left out."""
    bought = purchases.group_by("item_id").agg(count=pl.len().cast(pl.Int64))
    return bought.join(catalogue.lazy().select("item_id", "codes"), on="item_id").select("codes", "count")


def counts_of(table: pl.DataFrame, kind: str) -> dict[str, int]:
    """Return one kind's counts by key."""
    return dict(table.filter(pl.col("kind") == kind).select("key", "count").iter_rows())


def total_of(table: pl.DataFrame, kind: str) -> int:
    """Return the sum of one kind's counts."""
    return int(table.filter(pl.col("kind") == kind)["count"].sum())


def search_counts(requests: pl.LazyFrame, by: Sequence[str] = ()) -> pl.LazyFrame:
    """Return how often each tenth of each of the searches' own numbers occurs, apart by the columns `by`."""
    said = requests.select(*by, "stats").explode("stats").drop_nulls("stats").unnest("stats")
    kind = pl.concat_str(pl.lit(SEARCH), pl.col("name"))
    # Adding 0 makes one of the two zeros.
    tenth = (pl.col("value") * 10).round(0) / 10 + 0.0
    named = said.select(*by, kind=kind, key=tenth.cast(pl.String))
    return named.group_by(*by, "kind", "key").agg(count=pl.len())


def code_table(prefix: str, codes: pl.LazyFrame) -> pl.DataFrame:
    """Return how often each code of each level occurs in a table of semantic IDs `codes` and weights `count`."""
    kind = pl.concat_str(pl.lit(prefix), pl.col("level").cast(pl.String))
    counted = codebook_drift.code_counts(codes)
    return counted.select(kind=kind, key=pl.col("code").cast(pl.String), count=pl.col("count").cast(pl.Int64))


def _of_bundle(requests: pl.LazyFrame, bundle_id: str | None) -> pl.LazyFrame:
    return requests.filter(pl.col("bundle_id") == pl.lit(bundle_id, dtype=pl.String))


def _counts(values: pl.LazyFrame, kind: str) -> pl.LazyFrame:
    return values.drop_nulls().group_by("key").agg(count=pl.len()).select(pl.lit(kind).alias("kind"), "key", "count")


def _table(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    typed = [part.with_columns(pl.col("key").cast(pl.String), pl.col("count").cast(pl.Int64)) for part in parts]
    return pl.concat([*typed, SCHEMA.to_frame()]).sort("kind", "key")
