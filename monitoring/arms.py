"""What each arm of a revision answered in a window: how much, from what, how fast."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from monitoring import aggregate, counting
from monitoring.counting import Tally


def arm_rows(requests: pl.LazyFrame) -> list[dict[str, Any]]:
    """Return one row an arm and bundle: requests, shares of cold and degraded answers, latency percentiles."""
    source, latency = pl.col("source"), pl.col("latency_ms")
    rows = requests.group_by("arm", "bundle_id").agg(
        requests=pl.len(),
        cold_share=(source == "cold").mean(),
        degraded_share=(source == "degraded").mean(),
        latency_p50_ms=latency.quantile(0.5, "nearest"),
        latency_p99_ms=latency.quantile(0.99, "nearest"),
    )
    return rows.sort("arm", "bundle_id").collect(engine="streaming").to_dicts()


def counted_rows(tally: Tally, parts: Iterable[int]) -> list[dict[str, Any]]:
    """Return the same rows from counts; a percentile is right to the width of its bin, one per cent."""
    inside = tally.counts.filter(pl.col("part").is_in(list(parts)))
    pairs = inside.select("arm", "bundle_id").unique().sort("arm", "bundle_id")
    rows = []
    for arm, bundle_id in pairs.iter_rows():
        own = inside.filter(pl.col("arm") == arm, pl.col("bundle_id") == bundle_id)
        sources = aggregate.counts_of(own.group_by("kind", "key").agg(pl.col("count").sum()), "source")
        n = sum(sources.values())
        bins = own.filter(pl.col("kind") == counting.LATENCY).with_columns(pl.col("key").cast(pl.Int32))
        rows.append(
            {
                "arm": arm,
                "bundle_id": bundle_id,
                "requests": n,
                "cold_share": sources.get("cold", 0) / n,
                "degraded_share": sources.get("degraded", 0) / n,
                "latency_p50_ms": _percentile(bins, 0.5),
                "latency_p99_ms": _percentile(bins, 0.99),
            }
        )
    return rows


def _percentile(bins: pl.DataFrame, share: float) -> float:
    ordered = bins.group_by("key").agg(pl.col("count").sum()).sort("key").with_columns(pl.col("count").cum_sum())
    reached = ordered.filter(pl.col("count") >= share * ordered["count"].max())  # type: ignore[operator]
    return float(counting.LATENCY_STEP ** (reached["key"][0] - 0.5))
