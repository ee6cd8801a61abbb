"""What each arm of a revision answered in a window: how much, from what, how fast."""

from typing import Any

import polars as pl


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
