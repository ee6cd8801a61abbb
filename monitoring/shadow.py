"""A shadow's answers beside those that were sent to the same requests."""

from pathlib import Path
from typing import Any

import polars as pl

from monitoring import windows
from sidrec import exposure
from sidrec.errors import UsageError


def beside(exposures: Path, shadow: Path, *, bundle: str | None = None) -> dict[str, Any]:
    """Return how alike the answers are, and how each side answered; drawn answers are left out.

    `overlap` is the share of the sent items that the shadow has too, averaged over requests; `same_first` the share of
    requests with the same best item.

    Args:
        bundle: whose answers in the shadow's log; left out, the bundle that answered last.

    Raises:
        UsageError: no shadow answered a request that was logged.
    """
    others = exposure.scan(shadow)
    name = windows.newest_bundle(others) if bundle is None else bundle
    columns = "request_id", "item_ids", "source", "latency_ms"
    plain = windows.scan_exposures(exposures).filter(pl.col("propensities").is_null())
    theirs = others.filter(pl.col("bundle_id") == pl.lit(name, dtype=pl.String))
    both = (
        windows.distinct_requests(plain)
        .select(columns)
        .join(windows.distinct_requests(theirs).select(columns), on="request_id", suffix="_shadow")
        .collect()
    )
    if both.is_empty():
        raise UsageError(
            f"no shadow in {shadow} answered a request of {exposures}",
            next_step="put a bundle behind the champion as its shadow",
        )
    shared = pl.col("item_ids").list.set_intersection("item_ids_shadow").list.len() / pl.col("item_ids").list.len()
    first = pl.col("item_ids").list.first() == pl.col("item_ids_shadow").list.first()
    sides = {"sent": "", "shadow": "_shadow"}
    value: dict[str, Any] = both.select(overlap=shared.mean(), same_first=first.mean()).to_dicts()[0]
    return {
        "bundle_id": name,
        "requests": both.height,
        **value,
        **{side: _side(both, suffix) for side, suffix in sides.items()},
    }


def _side(both: pl.DataFrame, suffix: str) -> dict[str, float]:
    latency, source = both[f"latency_ms{suffix}"], both[f"source{suffix}"]
    return {
        "cold_share": float((source == "cold").sum() / both.height),
        "latency_p50_ms": float(latency.quantile(0.5, "nearest") or 0.0),
        "latency_p99_ms": float(latency.quantile(0.99, "nearest") or 0.0),
    }
