"""How each arm of an experiment uses its own semantic IDs: in what it serves, and in what is taken from it.

Codes of two bundles mean different items, so arms are compared by shares and entropies, never code by code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from monitoring import aggregate, codebook_drift, search_statistics
from monitoring.arms import arm_rows
from monitoring.codebook_drift import Traffic
from sidrec.bundle import open_bundle
from sidrec.release.revision import Revision


@dataclass(frozen=True, slots=True)
class LevelSizes:
    """How many codes each level of one bundle's semantic IDs has."""

    bundle_id: str
    sizes: Mapping[int, int]


def level_sizes(bundle: Path) -> LevelSizes:
    """Return the sizes of a bundle's levels, from its catalogue and recipe."""
    opened = open_bundle(bundle, verify=False)
    codebook = opened.recipe.section("codebook") or {}
    catalogue = pl.read_parquet(opened.folder / "catalogue.parquet")
    sizes = codebook_drift.level_sizes(catalogue, codebook.get("codebook_size"), codebook.get("num_levels"))
    return LevelSizes(opened.bundle_id, sizes)


def code_panel(
    requests: pl.LazyFrame, hits: pl.DataFrame, revision: Revision, sizes: Mapping[str, Mapping[int, int]]
) -> list[dict[str, Any]]:
    """Return one row an arm: its answers, the usage of each level's codes served and taken, its searches' numbers.

    Args:
        requests: the phase's exposures, each request once.
        hits: `request_id` and `item_id` of each item that an answer showed and the user took.
        sizes: codes of each level by bundle id; without its bundle's, an arm has no utilisation and no normalised
            entropy, because nobody knows how many codes there are.
    """
    answered = {(row["arm"], row["bundle_id"]): row for row in arm_rows(requests)}
    rows = []
    for arm in revision.arms:
        bundle_id = arm.bundle.bundle_id
        if (arm.name, bundle_id) not in answered:
            continue
        own = requests.filter(pl.col("arm") == arm.name, pl.col("bundle_id") == bundle_id)
        counts = aggregate.request_counts(own, bundle_id)
        usage: dict[Traffic, pl.DataFrame] = {
            "served": codebook_drift.code_counts(aggregate.served_codes(own, bundle_id)),
            "bought": codebook_drift.code_counts(_taken(own, hits)),
        }
        levels = [
            _level(traffic, level, table, sizes.get(bundle_id, {}).get(level))
            for traffic, table in usage.items()
            for level in sorted(usage["served"]["level"].unique())
        ]
        searches = [seen.as_dict() for seen in search_statistics.statistics(counts)]
        rows.append({**answered[arm.name, bundle_id], "levels": levels, "search": searches})
    return rows


def _level(traffic: Traffic, level: int, table: pl.DataFrame, size: int | None) -> dict[str, Any]:
    counts = table.filter(pl.col("level") == level)["count"].to_list()
    row = codebook_drift.usage(level, traffic, counts, size or max(len(counts), 1)).as_dict()
    unknown = {} if size else {"size": None, "utilisation": None, "normalised_entropy": None}
    return row | unknown


def _taken(own: pl.LazyFrame, hits: pl.DataFrame) -> pl.LazyFrame:
    """Return the semantic IDs of the items taken, each as often as it was; -1 pads them as it did in the answer."""
    shown = own.select("request_id", item_id="item_ids", codes="semantic_ids").explode("item_id", "codes")
    taken = hits.lazy().select("request_id", "item_id").unique()
    return shown.join(taken, on=["request_id", "item_id"]).group_by("codes").agg(count=pl.len().cast(pl.Int64))
