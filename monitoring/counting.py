"""One pass over the exposure log, and what is left of it: counts by part of time, arm and bundle.

Rows come in pieces and leave as histograms with a bounded number of keys, one count an item, and sums; so a log of any
length takes the memory of one piece and of the catalogue, and nothing downstream reads it again.

Axes: `part` spans of event time that a report compares, by number.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
import polars as pl

from monitoring import aggregate, labels, windows
from monitoring.labels import Matcher

BY = ["part", "arm", "bundle_id"]
COUNTS = pl.Schema(
    {"part": pl.Int32, "arm": pl.String, "bundle_id": pl.String, "kind": pl.String, "key": pl.String, "count": pl.Int64}
)
_ITEM_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "part": pl.Int32,
    "arm": pl.String,
    "bundle_id": pl.String,
    "item_id": pl.String,
    "codes": pl.List(pl.Int32),
    "count": pl.Int64,
}
ITEMS = pl.Schema(_ITEM_COLUMNS)
QUALITY = pl.Schema(
    {
        "part": pl.Int32,
        "arm": pl.String,
        "bundle_id": pl.String,
        "name": pl.String,
        "n": pl.Int64,
        "total": pl.Float64,
        "squares": pl.Float64,
    }
)

REQUESTS = "requests"
LATENCY = "latency"
LATENCY_STEP = 1.02
"""Ratio of two neighbouring bins of latency, so a percentile is right to one per cent."""
TIES = "tie_order"
_TIES_LOOKED_AT = 20_000
_MERGE_AT = 24
_GROUP = "group"

COLUMNS = [
    "request_id", "user_id", "wall_time_ms", "event_time", "arm", "bundle_id", "surface", "k", "history_source",
    "history_length", "known_items", "item_ids", "semantic_ids", "scores", "source", "feature_age_s", "latency_ms",
    "stats",
]  # fmt: skip

# Of every request, whatever its bundle: one histogram each.
_HISTOGRAMS: Mapping[str, pl.Expr] = {
    **aggregate.FEATURES,
    "surface": pl.col("surface"),
    "known_items": pl.col("known_items"),
    "null_history": pl.when(pl.col("history_length") > 0).then(pl.lit("no")).otherwise(pl.lit("yes")),
    "short_list": pl.when(pl.col("item_ids").list.len() < pl.col("k")).then(pl.lit("yes")).otherwise(pl.lit("no")),
    LATENCY: (pl.col("latency_ms").clip(lower_bound=1e-3).log() / log(LATENCY_STEP)).ceil().cast(pl.Int32),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A span of event time, `first` inside and `after` not."""

    first: int
    after: int


@dataclass(slots=True)
class Tally:
    """Counts of every part, arm and bundle; nothing of single requests but the outcomes that matched some."""

    counts: pl.DataFrame
    items: pl.DataFrame
    quality: pl.DataFrame
    matcher: Matcher
    watermark: int

    def arms(self, parts: Iterable[int]) -> list[tuple[str, str]]:
        """Return each arm of some parts with its bundle, of several the one that answered most requests, by name."""
        rows = self.counts.filter(pl.col("part").is_in(list(parts)), pl.col("kind") == REQUESTS)
        total = rows.group_by("arm", "bundle_id").agg(pl.col("count").sum()).sort("count", "bundle_id", descending=True)
        return sorted(total.unique("arm", keep="first").select("arm", "bundle_id").iter_rows())

    def table(self, parts: Iterable[int], bundle_id: str | None, arm: str | None = None) -> pl.DataFrame:
        """Return parts added up as the (kind, key, count) rows of `aggregate.SCHEMA`, of one arm or of all.

        Codes, searches' numbers and ties are one bundle's; another's mean other things under the same names.
        """
        inside = [pl.col("part").is_in(list(parts))] + ([] if arm is None else [pl.col("arm") == arm])
        own = pl.col("bundle_id") == pl.lit(bundle_id, dtype=pl.String)
        private = pl.col("kind").str.starts_with(aggregate.SEARCH) | (pl.col("kind") == TIES)
        counts = self.counts.filter(*inside, ~private | own)
        items = self.items.filter(*inside)
        served = items.select(pl.lit(aggregate.SERVED).alias("kind"), key="item_id", count="count")
        codes = aggregate.code_table(aggregate.SERVED_CODES, items.filter(own).lazy())
        rows = pl.concat([counts.select("kind", "key", "count"), served, codes])
        return rows.group_by("kind", "key").agg(pl.col("count").sum()).sort("kind", "key")

    def requests(self, parts: Iterable[int], arm: str | None = None, bundle_id: str | None = None) -> int:
        """Return how many requests some parts have, of one arm or bundle or of all."""
        inside = [pl.col("part").is_in(list(parts)), pl.col("kind") == REQUESTS]
        inside += [] if arm is None else [pl.col("arm") == arm]
        inside += [] if bundle_id is None else [pl.col("bundle_id") == bundle_id]
        return int(self.counts.filter(*inside)["count"].sum())

    def places(self, parts: Iterable[int], whose: tuple[str, str]) -> int:
        """Return how many items the answers of one arm's bundle hold together."""
        arm, bundle_id = pl.col("arm") == whose[0], pl.col("bundle_id") == whose[1]
        return int(self.items.filter(pl.col("part").is_in(list(parts)), arm, bundle_id)["count"].sum())

    def served(self, parts: Iterable[int], bundle_id: str, arm: str | None = None) -> pl.DataFrame:
        """Return `item_id`, `codes` and `count` of what one bundle served."""
        rows = self.items.filter(pl.col("part").is_in(list(parts)), pl.col("bundle_id") == bundle_id)
        rows = rows if arm is None else rows.filter(pl.col("arm") == arm)
        return rows.group_by("item_id").agg(pl.col("codes").first(), pl.col("count").sum()).sort("item_id")


def tally(
    exposures: pl.LazyFrame,
    parts: Sequence[Part],
    outcomes: pl.LazyFrame,
    *,
    watermark: int,
    orders: Mapping[str, pl.DataFrame] | None = None,
    without: pl.Series | None = None,
    piece_rows: int = windows.PIECE_ROWS,
) -> Tally:
    """Return the counts of the requests that lie in a part, read once, in pieces.

    Args:
        exposures: rows in a fixed order; see `without`.
        parts: disjoint; a request outside of all is only looked at for outcomes.
        watermark: up to where outcomes have been seen.
        orders: for each bundle known, `item_id` and `place`: which of two items with one score goes first.
        without: row numbers to leave out (`windows.repeated_rows`).
    """
    matcher = Matcher(outcomes)
    counts, items, quality = _Sum(["kind", "key"], COUNTS), _Sum(["item_id"], ITEMS), _Sum(["name"], QUALITY)
    for piece in windows.pieces(exposures.select(COLUMNS), without=without, rows=piece_rows):
        matcher.add(piece)
        inside = _in_parts(piece, parts)
        histograms, shown = count_piece(inside, orders or {})
        counts.add(histograms)
        items.add(shown)
        quality.add(labels.quality(inside, matcher.events, by=BY, watermark=watermark))
    return Tally(counts.table(), items.table(), quality.table(), matcher, watermark)


def count_piece(piece: pl.DataFrame, orders: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the histograms (`COUNTS`) and the items (`ITEMS`) of rows that have a `part`."""
    # One small number stands for part, arm and bundle while rows are grouped: strings cost ten times as much.
    groups = piece.select(BY).unique().with_row_index(_GROUP)
    group = piece.select(BY).join(groups, on=BY, maintain_order="left")[_GROUP]
    piece = piece.with_columns(group)
    histograms = [_histograms(piece, groups)]
    for bundle_id, order in orders.items():
        # A cold answer has no scores of a model; the popular items have an order of their own.
        own = piece.lazy().filter(pl.col("bundle_id") == bundle_id, pl.col("source") == "model")
        histograms.append(_ties(own.select(_GROUP, "item_ids", "scores").collect(), groups, order))
    return pl.concat(histograms), _items(piece, groups)


def tie_order(catalogue: pl.DataFrame) -> pl.DataFrame:
    """Return `item_id` and `place` of a catalogue: of equal scores the more popular goes first, then the earlier."""
    popularity = pl.col("popularity") if "popularity" in catalogue.columns else pl.lit(0)
    ranked = catalogue.lazy().select("item_id", popularity=popularity).with_row_index("row")
    return ranked.sort("popularity", "row", descending=[True, False]).with_row_index("place").select(
        "item_id", "place"
    ).collect()  # fmt: skip


def _in_parts(piece: pl.DataFrame, parts: Sequence[Part]) -> pl.DataFrame:
    time = pl.col("event_time")
    number = pl.coalesce(
        pl.lit(None),
        *(pl.when(time >= part.first, time < part.after).then(number) for number, part in enumerate(parts)),
    )
    return piece.with_columns(part=number.cast(pl.Int32)).filter(pl.col("part").is_not_null())


def _histograms(piece: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    rows = piece.lazy()
    kinds = [
        rows.select(_GROUP, key=value).drop_nulls("key").group_by(_GROUP, "key").agg(count=pl.len()).select(
            _GROUP, pl.lit(kind).alias("kind"), pl.col("key").cast(pl.String), pl.col("count").cast(pl.Int64)
        )
        for kind, value in {REQUESTS: pl.lit(""), aggregate.COMPARED: pl.lit(""), **_HISTOGRAMS}.items()
    ]  # fmt: skip
    searches = aggregate.search_counts(rows, [_GROUP]).with_columns(pl.col("count").cast(pl.Int64))
    return _named(pl.concat(pl.collect_all([*kinds, searches])), groups, COUNTS)


def _items(piece: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Return how often each item was served, with its semantic ID; within a bundle an item has one."""
    shown = piece.select(_GROUP, item_id="item_ids").explode("item_id").with_row_index("place")
    counted = (
        shown.lazy()
        .drop_nulls("item_id")
        .group_by(_GROUP, "item_id")
        .agg(count=pl.len(), place=pl.col("place").first())
        .collect()
    )
    # Lists of codes are not grouped by: one place of each item tells them.
    codes = piece["semantic_ids"].explode().gather(counted["place"])
    return _named(counted.with_columns(codes=codes), groups, ITEMS)


def _named(table: pl.DataFrame, groups: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return table.join(groups, on=_GROUP).select(list(schema)).cast(schema)


def _ties(piece: pl.DataFrame, groups: pl.DataFrame, order: pl.DataFrame) -> pl.DataFrame:
    """Return how many answers with equal scores, of the first looked at, have those items in order and how many not."""
    lengths = piece["scores"].list.len().to_numpy()
    row_of = np.repeat(np.arange(piece.height), lengths)
    scores = piece["scores"].explode().drop_nulls().to_numpy()
    equal = np.flatnonzero((scores[1:] == scores[:-1]) & (row_of[1:] == row_of[:-1]))
    tied = np.unique(row_of[equal])[:_TIES_LOOKED_AT]
    long = (
        piece[tied]
        .lazy()
        .with_row_index("row")
        .select("row", _GROUP, item_id="item_ids", score="scores")
        .explode("item_id", "score")
        .join(order.lazy(), on="item_id", how="left", maintain_order="left")
        .with_columns(
            wrong=(pl.col("score").diff().over("row") == 0)
            & (pl.col("place").cast(pl.Int64).diff().over("row").fill_null(0) < 0)
        )
    )
    rows = long.group_by("row", _GROUP).agg(pl.col("wrong").any())
    key = pl.when("wrong").then(pl.lit("broken")).otherwise(pl.lit("kept"))
    counted = rows.group_by(_GROUP, key=key).agg(count=pl.len()).with_columns(kind=pl.lit(TIES))
    return _named(counted.collect(), groups, COUNTS)


@dataclass(slots=True)
class _Sum:
    """Tables added up by their keys, merged every so often so that their rows stay few."""

    keys: list[str]
    schema: pl.Schema
    parts: list[pl.DataFrame] = field(default_factory=list)

    def add(self, table: pl.DataFrame) -> None:
        self.parts.append(table)
        if len(self.parts) >= _MERGE_AT:
            self.parts = [self.table()]

    def table(self) -> pl.DataFrame:
        by = [*BY, *self.keys]
        others = [
            pl.col(name).first() if isinstance(kind, pl.List) else pl.col(name).sum()
            for name, kind in self.schema.items()
            if name not in by
        ]
        rows = pl.concat([self.schema.to_frame(), *self.parts])
        return rows.group_by(by).agg(others).select(list(self.schema)).sort(by)
