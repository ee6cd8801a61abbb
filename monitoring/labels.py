"""What users did after an answer: which request an outcome belongs to, and how well the answers foretold it.

Labels come late. An outcome may follow its exposure by `ATTRIBUTION_DAYS`; until then a request is owed labels, and a
window is final only when the last of its requests is not. Exposures come in pieces, so that a log of any length is
joined in the memory of one piece and of the outcomes.

Every time is the event clock's, in unix seconds.
"""

from dataclasses import dataclass
from math import log2

import polars as pl

from monitoring import windows
from monitoring.windows import Window
from sidrec.clock import DAY_S

ATTRIBUTION_DAYS = 7
LABEL_DELAY_S = ATTRIBUTION_DAYS * DAY_S
CUTOFFS = (5, 10, 20)
_OUTCOME_ORDER = ["event_time", "event_id"]
_MATCH = ["event_id", "event_time", "item_id", "request_id", "exposed", "wall_time_ms", "arm", "bundle_id", "on_list"]


def is_final(window: Window, watermark: int) -> bool:
    """Return whether every request of a window has had its `ATTRIBUTION_DAYS` of outcomes."""
    return window.bounds[1] - 1 + LABEL_DELAY_S <= watermark


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where every outcome of a window went: outcomes = by_request + by_item + unmatched."""

    requests: int
    outcomes: int
    by_request: int
    by_item: int
    unmatched: int
    hits: pl.DataFrame

    @property
    def requests_with_hit(self) -> int:
        """Counted requests of whose items at least one was bought."""
        return self.hits.filter("counted")["request_id"].n_unique()

    @property
    def hit_rate(self) -> float:
        """Share of the counted requests with a hit, so far."""
        return self.requests_with_hit / self.requests if self.requests else 0.0

    def as_dict(self) -> dict[str, int | float]:
        """Return the counts and the hit rate."""
        return {
            "requests": self.requests,
            "outcomes": self.outcomes,
            "by_request": self.by_request,
            "by_item": self.by_item,
            "unmatched": self.unmatched,
            "hits": self.hits.height,
            "requests_with_hit": self.requests_with_hit,
            "hit_rate": self.hit_rate,
        }


class Matcher:
    """Joins exposures with outcomes piece by piece.

    An outcome belongs to the request it names; else to the earliest request that showed this item to this user in the
    7 days before it. An exposed item counts as a hit once, by its first outcome.
    """

    def __init__(self, outcomes: pl.LazyFrame) -> None:
        distinct = outcomes.unique("event_id", keep="first", maintain_order=True)
        columns = ["event_id", "user_id", "item_id", "event_time", "request_id"]
        self.events = distinct.select(columns).collect()
        """Distinct outcomes."""
        # A user without a request that names nothing costs no join below.
        self._users = self.events.select("user_id").unique()
        self._named: list[pl.DataFrame] = []
        self._by_item: list[pl.DataFrame] = []

    def add(self, piece: pl.DataFrame) -> None:
        """Look for the outcomes of distinct requests."""
        shown = piece.lazy().select(
            "request_id", "user_id", "wall_time_ms", "item_ids", "arm", "bundle_id", exposed="event_time"
        )
        events = self.events.lazy()
        named = events.join(shown.drop("user_id"), on="request_id", how="inner", maintain_order="left").with_columns(
            on_list=pl.col("item_ids").list.contains(pl.col("item_id"))
        )
        pairs = (
            shown.join(self._users.lazy(), on="user_id", how="semi")
            .rename({"item_ids": "item_id"})
            .explode("item_id")
            .with_columns(on_list=pl.lit(True))
        )
        waited = pl.col("event_time") - pl.col("exposed")
        by_item = (
            events.drop("request_id")
            .join(pairs, on=["user_id", "item_id"], how="inner")
            .filter(waited >= 0, waited <= LABEL_DELAY_S)
        )
        found = pl.collect_all([named.select(_MATCH), by_item.select(_MATCH)])
        self._named.append(found[0])
        self._by_item.append(found[1])

    def attribution(
        self, requests: int, *, since: int | None = None, until: int | None = None, count_from: int = 0
    ) -> Attribution:
        """Return where the outcomes went.

        Args:
            requests: how many requests count.
            since: outcomes before it, and requests more than the label delay before it, are left out.
            until: outcomes from it on are left out.
            count_from: requests before this time take outcomes but are not counted.
        """
        events, named, by_item = self._between(since, until)
        rest = by_item.join(named, on="event_id", how="anti").sort("exposed", "wall_time_ms", "request_id")
        first = rest.unique("event_id", keep="first", maintain_order=True)
        hits = (
            pl.concat([named.filter("on_list"), first])
            .select("request_id", "item_id", "event_id", "event_time", "exposed", "arm", "bundle_id")
            .with_columns(counted=pl.col("exposed") >= count_from)
            .sort(_OUTCOME_ORDER)
            .unique(["request_id", "item_id"], keep="first", maintain_order=True)
        )
        return Attribution(
            requests=requests,
            outcomes=events.height,
            by_request=named.height,
            by_item=first.height,
            unmatched=events.height - named.height - first.height,
            hits=hits,
        )

    def _between(self, since: int | None, until: int | None) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        tables = (self.events, pl.concat(self._named or [_NO_MATCH]), pl.concat(self._by_item or [_NO_MATCH]))
        time = pl.col("event_time")
        inside = [time >= since] if since is not None else []
        inside += [time < until] if until is not None else []
        events, named, by_item = (table.filter(*inside) for table in tables) if inside else tables
        if since is not None:
            named, by_item = (table.filter(pl.col("exposed") >= since - LABEL_DELAY_S) for table in (named, by_item))
        return events, named, by_item


_NO_MATCH = pl.DataFrame(
    schema={
        "event_id": pl.String,
        "event_time": pl.Int64,
        "item_id": pl.String,
        "request_id": pl.String,
        "exposed": pl.Int64,
        "wall_time_ms": pl.Int64,
        "arm": pl.String,
        "bundle_id": pl.String,
        "on_list": pl.Boolean,
    }
)


def attribute(exposures: pl.LazyFrame, outcomes: pl.LazyFrame, *, count_from: int = 0) -> Attribution:
    """Return which of the items that distinct requests exposed were bought (`Matcher`).

    Args:
        count_from: requests before this time take outcomes but are not counted.
    """
    columns = ["request_id", "user_id", "wall_time_ms", "item_ids", "arm", "bundle_id", "event_time"]
    matcher, counted = Matcher(outcomes), 0
    for piece in windows.pieces(exposures.select(columns)):
        matcher.add(piece)
        counted += piece.filter(pl.col("event_time") >= count_from).height
    return matcher.attribution(counted, count_from=count_from)


def quality(piece: pl.DataFrame, outcomes: pl.DataFrame, *, by: list[str], watermark: int) -> pl.DataFrame:
    """Return rows (by…, name, n, total, squares) of Recall@K and NDCG@K of the requests whose labels are all in.

    A request's targets are the distinct items that its user bought in the label delay after it; a request without any
    has no recall. The ideal of NDCG holds min(K, targets) items, as `sidrec.evaluation.metrics` has it.

    Args:
        by: columns of `piece` whose values are kept apart.
        outcomes: distinct events, in memory.
    """
    ripe = piece.lazy().filter(pl.col("event_time") + LABEL_DELAY_S <= watermark).with_row_index("row")
    bought = outcomes.lazy().select("user_id", "item_id", bought="event_time")
    waited = pl.col("bought") - pl.col("event_time")
    targets = (
        ripe.select("row", "user_id", "event_time")
        .join(bought, on="user_id")
        .filter(waited >= 0, waited <= LABEL_DELAY_S)
        .select("row", "item_id")
        .unique()
        .collect()
    )
    sizes = targets.lazy().group_by("row").agg(size=pl.len())
    places = (
        ripe.select("row", item_id="item_ids", place=pl.int_ranges(1, pl.col("item_ids").list.len() + 1))
        .join(sizes, on="row", how="semi")
        .explode("item_id", "place")
    )
    hits = places.join(targets.lazy(), on=["row", "item_id"]).group_by("row").agg("place")
    rows = ripe.select("row", *by).join(sizes, on="row").join(hits, on="row", how="left").collect()
    return _moments(rows, by)


def _moments(rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    values = {}
    for k in CUTOFFS:
        inside = pl.col("place").list.filter(pl.element() <= k)
        ideals = {size: sum(1 / log2(place + 1) for place in range(1, size + 1)) for size in range(1, k + 1)}
        ideal = pl.col("size").clip(upper_bound=k).replace_strict(ideals, return_dtype=pl.Float64)
        gains = inside.list.eval(1 / (pl.element() + 1).log(2)).list.sum()
        values[f"recall@{k}"] = inside.list.len() / pl.col("size")
        values[f"ndcg@{k}"] = gains / ideal
    scored = rows.select(*by, **{name: value.fill_null(0.0) for name, value in values.items()})
    long = scored.unpivot(index=by, variable_name="name", value_name="value")
    return long.group_by(*by, "name").agg(
        n=pl.len().cast(pl.Int64), total=pl.col("value").sum(), squares=(pl.col("value") ** 2).sum()
    )
