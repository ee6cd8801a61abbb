"""Every figure of one arm in one span of time that is a number by itself, by name.

Names are those of findings, thresholds and Evidently's metrics: `served/0/perplexity`, `cold_share`, `ndcg@10`. A
figure that the span's rows do not tell is absent. Codes are counted by level, or by slot where an ID has no order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitoring import aggregate, codebook_drift, counting, labels, search_statistics
from monitoring.counting import Tally
from sidrec.quantization.health import gini

Floats = NDArray[np.float64]
Traffic = Literal["catalogue", "served", "clicked"]

HEAD_SHARE = 0.2
"""The most popular fifth of the catalogue is its head, as in `sidrec.evaluation`."""
_YES_SHARES = ("null_history", "short_list")
_SOURCES = {"cold_share": "cold", "degraded_share": "degraded"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure and the rows behind it."""

    value: float
    n: int


Readings = dict[str, Reading]


@dataclass(frozen=True)
class CodeSpace:
    """One bundle's catalogue as monitoring needs it."""

    bundle_id: str
    catalogue: pl.DataFrame
    sizes: Mapping[int, int]

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """[item, level] semantic IDs; -1 pads a code that an item lacks."""
        wide = self.catalogue["codes"].list.to_array(len(self.sizes)) if self.sizes else None
        return np.zeros((self.catalogue.height, 0), np.int64) if wide is None else wide.to_numpy().astype(np.int64)

    @cached_property
    def shared(self) -> NDArray[np.bool_]:
        """[item, level]: whether another item of the catalogue has the same codes up to this one."""
        items, depths = self.codes.shape
        seen = np.zeros((items, depths), dtype=bool)
        prefix: NDArray[np.int64] = np.zeros(items, dtype=np.int64)
        for depth in range(depths):
            codes = self.codes[:, depth]
            keys = prefix * (codes.max(initial=0) + 2) + codes + 1
            _, prefix, counts = np.unique(keys, return_inverse=True, return_counts=True)
            seen[:, depth] = counts[prefix] > 1
        return seen

    @cached_property
    def own_readings(self) -> Readings:
        """Figures of the catalogue, every item once."""
        return code_readings("catalogue", self, np.ones(self.catalogue.height))

    @cached_property
    def head(self) -> NDArray[np.bool_]:
        """[item], whether it is among the most popular fifth."""
        popularity = self._popularity
        order = np.lexsort((np.arange(len(popularity)), -popularity))
        head = np.zeros(len(popularity), dtype=bool)
        head[order[: round(HEAD_SHARE * len(popularity))]] = True
        return head

    @cached_property
    def _popularity(self) -> NDArray[np.int64]:
        if "popularity" not in self.catalogue.columns:
            return np.zeros(self.catalogue.height, np.int64)
        return self.catalogue["popularity"].fill_null(0).to_numpy().astype(np.int64)

    def mean_popularity(self, weights: Floats) -> float:
        """Return the mean purchases in the fit period of an item drawn by weight."""
        return float((weights * self._popularity).sum() / max(weights.sum(), 1))

    def weights(self, counts: pl.DataFrame) -> Floats:
        """Return [item] how often each item of the catalogue is in a table of `item_id` and `count`."""
        joined = self.catalogue.select("item_id").join(
            counts.group_by("item_id").agg(pl.col("count").sum()), on="item_id", how="left", maintain_order="left"
        )
        return joined["count"].fill_null(0).to_numpy().astype(np.float64)


def arm_readings(
    tally: Tally,
    parts: Iterable[int],
    arm: str,
    bundle_id: str,
    space: CodeSpace | None,
    taken: pl.DataFrame,
    *,
    places: int | None = None,
) -> Readings:
    """Return every figure of what one arm's bundle answered in some parts.

    Args:
        space: the bundle's catalogue; without it codes have no utilisation and lists no coverage.
        taken: `item_id` and `count` of the items taken from those answers.
        places: of what is served, used codes and shown items are those expected among so many places: more places
            show more, so two windows are only compared at one number.
    """
    parts = list(parts)
    found = answer_readings(tally.table(parts, bundle_id, arm)) | quality_readings(tally.quality, parts, arm)
    if space is None:
        return found
    return found | space.own_readings | item_readings(space, tally.served(parts, bundle_id, arm), taken, places=places)


def item_readings(
    space: CodeSpace, served: pl.DataFrame, taken: pl.DataFrame, *, places: int | None = None
) -> Readings:
    """Return every figure of the items served and taken, tables of `item_id` and `count`; `places` as above."""
    weights = space.weights(served)
    return (
        code_readings("served", space, weights, places=places)
        | code_readings("clicked", space, space.weights(taken))
        | list_readings(space, weights, places=places)
    )


def answer_readings(table: pl.DataFrame) -> Readings:
    """Return shares and means of answers from their histograms (`aggregate.SCHEMA`)."""
    found: Readings = {}
    for name in _YES_SHARES:
        counts = aggregate.counts_of(table, name)
        if n := sum(counts.values()):
            found[name] = Reading(counts.get("yes", 0) / n, n)
    sources = aggregate.counts_of(table, "source")
    if n := sum(sources.values()):
        found |= {name: Reading(sources.get(source, 0) / n, n) for name, source in _SOURCES.items()}
    ages = aggregate.counts_of(table, "feature_age_days")
    if n := sum(ages.values()):
        found["feature_age"] = Reading(sum(float(age) * count for age, count in ages.items()) / n, n)
    ties = aggregate.counts_of(table, counting.TIES)
    if n := sum(ties.values()):
        found["broken_ties"] = Reading(ties.get("broken", 0) / n, n)
    for seen in search_statistics.statistics(table):
        found[f"search/{seen.name}/mean"] = Reading(seen.mean, seen.requests)
        found[f"search/{seen.name}/entropy"] = Reading(seen.entropy, seen.requests)
    return found


def quality_readings(quality: pl.DataFrame, parts: Iterable[int], arm: str) -> Readings:
    """Return Recall@K and NDCG@K, means over the requests whose labels are in."""
    own = quality.filter(pl.col("part").is_in(list(parts)), pl.col("arm") == arm)
    rows = own.group_by("name").agg(pl.col("n").sum(), pl.col("total").sum()).filter(pl.col("n") > 0)
    return {name: Reading(total / n, n) for name, n, total in rows.sort("name").iter_rows()}


def code_readings(traffic: Traffic, space: CodeSpace, weights: Floats, *, places: int | None = None) -> Readings:
    """Return how the codes of each level, and every two slots together, are used by items of these weights [item]."""
    total = int(weights.sum())
    found: Readings = {}
    if not total:
        return found
    for level, size in space.sizes.items():
        codes = space.codes[:, level]
        real = codes >= 0
        mass = np.bincount(codes[real], weights=weights[real], minlength=size).astype(np.float64)
        if not mass.sum():
            continue
        usage = codebook_drift.usage(level, "served", mass.tolist(), size)
        values = {
            "utilisation": expected_kinds(mass, places) / size,
            "perplexity": usage.perplexity,
            "normalised_entropy": usage.normalised_entropy,
            "dead_codes": size - expected_kinds(mass, places),
            "largest_share": usage.largest_share,
            "collision_share": float(weights[space.shared[:, level]].sum() / total),
        }
        found |= {f"{traffic}/{level}/{name}": Reading(value, int(mass.sum())) for name, value in values.items()}
    overlaps = slot_overlaps(space.codes, weights)
    if len(overlaps):
        found[f"{traffic}/slot_overlap"] = Reading(float(overlaps.max()), total)
    return found


def slot_overlaps(codes: NDArray[np.int64], weights: Floats) -> Floats:
    """Return the normalised mutual information of every two slots' codes [item, slot] under item weights [item].

    I(A; B) over the mean of both entropies, as `sidrec.quantization.health.mutual_information` has it of one weight.
    """
    codes = codes + 1  # -1 pads
    size = int(codes.max(initial=0)) + 1
    entropies = [_entropy(codes[:, slot], weights) for slot in range(codes.shape[1])]
    overlaps = []
    for one, other in combinations(range(codes.shape[1]), 2):
        shared = entropies[one] + entropies[other] - _entropy(codes[:, one] * size + codes[:, other], weights)
        overlaps.append(shared / max((entropies[one] + entropies[other]) / 2, 1e-12))
    return np.array(overlaps)


def _entropy(values: NDArray[np.int64], weights: Floats) -> float:
    served = weights > 0
    _, group = np.unique(values[served], return_inverse=True)
    shares = np.bincount(group, weights=weights[served]) / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def expected_kinds(mass: Floats, places: int | None) -> float:
    """Return how many kinds of this mass [kind] are expected among so many draws; of all of it, how many there are."""
    total = mass.sum()
    if places is None or places >= total:
        return float((mass > 0).sum())
    return float((1 - (1 - mass / total) ** places).sum())


def list_readings(space: CodeSpace, weights: Floats, *, places: int | None = None) -> Readings:
    """Return how much of the catalogue the answers show, and how popular it is, from how often each item was served."""
    total = int(weights.sum())
    if not total:
        return {}
    return {
        "coverage": Reading(expected_kinds(weights, places) / max(1, len(weights)), total),
        "head_share": Reading(float(weights[space.head].sum() / total), total),
        "served_gini": Reading(gini(weights), total),
        "served_popularity": Reading(space.mean_popularity(weights), total),
    }


def taken_items(hits: pl.DataFrame, arm: str, bundle_id: str) -> pl.DataFrame:
    """Return `item_id` and `count` of the hits of one arm's bundle (`labels.Attribution.hits`)."""
    own = hits.filter(pl.col("arm") == arm, pl.col("bundle_id") == bundle_id)
    return own.group_by("item_id").agg(count=pl.len().cast(pl.Int64))


def label_names() -> tuple[str, ...]:
    """Return the names of the figures that need labels."""
    return tuple(f"{name}@{k}" for name in ("recall", "ndcg") for k in labels.CUTOFFS)
