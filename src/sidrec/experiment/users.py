"""One row a user, from the exposure log and what its answers led to.

A user is the unit: the hash draws users into arms, not requests. A user enters when their first exposure is
`window_s` old, and only what falls into that window counts, so that a row never changes once it is there. The
always-valid intervals need this; it also gives early and late users the same time.
"""

from collections.abc import Callable, Mapping

import polars as pl


def by_user(
    exposures: pl.LazyFrame,
    hits: pl.LazyFrame,
    *,
    experiment: str | None,
    bundles: Mapping[str, str],
    window_s: int,
    until: int,
    since: int = 0,
    assigned: Callable[[str], str | None] | None = None,
) -> pl.DataFrame:
    """Return one row a user whose window closed by `until`.

    Columns: `user_id`, `arm` (the first that the user saw), `first_seen`, `arms` (how many they saw), `requests`,
    `foreign` (answers of a bundle that is not the arm's), `misplaced` (answers of an arm that is not the one that
    `assigned` says, where it is given), `latency_ms` (sum over the requests), `cold` and `degraded`
    (requests so answered), `hits` (shown items that were taken), `hit_requests` (requests with at least one).
    Requests without a user id are in no row: their arm hangs on the request.

    Args:
        exposures: the exposure log, of any experiments.
        experiment: whose exposures count; None counts all, to see users as they are before an experiment.
        hits: `request_id`, `item_id` and `event_time`, each item that an answer showed and the user took, once.
        bundles: the bundle id of each arm in the experiment's revision.
        window_s: how long after their first exposure a user is followed, in seconds of event time.
        until: now, unix seconds of event time.
        since: first exposures before this time belong to another phase. A phase is a time of constant shares:
            ramping 5 % to 20 % begins a new one, because users of both phases together match neither's shares.
        assigned: the arm that the revision gives a user id, None for who is not in the experiment.
    """
    own = pl.lit(True) if experiment is None else pl.col("experiment") == experiment
    shown = exposures.filter(own, pl.col("user_id").is_not_null())
    first = pl.col("event_time").min().over("user_id")
    followed = (
        shown.with_columns(first_seen=first)
        .filter(
            pl.col("first_seen") >= since,
            pl.col("first_seen") + window_s <= until,
            pl.col("event_time") < pl.col("first_seen") + window_s,
        )
        .select(
            "request_id",
            "user_id",
            "arm",
            "bundle_id",
            "event_time",
            "wall_time_ms",
            "latency_ms",
            "source",
            "first_seen",
        )
    )
    taken = (
        followed.select("request_id", "first_seen")
        .join(hits.select("request_id", "item_id", taken_at="event_time"), on="request_id")
        .filter(pl.col("taken_at") < pl.col("first_seen") + window_s)
        .unique(["request_id", "item_id"])
        .group_by("request_id")
        .agg(hits=pl.len())
    )
    expected = pl.col("arm").replace_strict(dict(bundles), default=None, return_dtype=pl.String)
    counted = {} if assigned is None else {"misplaced": pl.col("misplaced").sum()}
    return (
        _with_misplaced(followed, assigned)
        .join(taken, on="request_id", how="left")
        .with_columns(pl.col("hits").fill_null(0), foreign=pl.col("bundle_id").ne_missing(expected))
        .sort("event_time", "wall_time_ms", "request_id")
        .group_by("user_id", maintain_order=True)
        .agg(
            pl.col("arm").first(),
            pl.col("first_seen").first(),
            arms=pl.col("arm").n_unique(),
            requests=pl.len(),
            foreign=pl.col("foreign").sum(),
            **counted,
            latency_ms=pl.col("latency_ms").cast(pl.Float64).sum(),
            cold=(pl.col("source") == "cold").sum(),
            degraded=(pl.col("source") == "degraded").sum(),
            hits=pl.col("hits").sum(),
            hit_requests=(pl.col("hits") > 0).sum(),
        )
        .sort("user_id")
        .collect()
    )


def _with_misplaced(requests: pl.LazyFrame, assigned: Callable[[str], str | None] | None) -> pl.LazyFrame:
    """Return the requests with whether another arm answered than the one that the user belongs to."""
    if assigned is None:
        return requests
    users = requests.select("user_id").unique().collect()["user_id"]
    own = pl.DataFrame(
        {"user_id": users, "own": [assigned(user) for user in users]}, schema_overrides={"own": pl.String}
    )
    return requests.join(own.lazy(), on="user_id").with_columns(misplaced=pl.col("arm").ne_missing(pl.col("own")))


def with_past(users: pl.DataFrame, outcomes: pl.LazyFrame, *, start: int, days: int, name: str) -> pl.DataFrame:
    """Return the users with a column of how many outcomes each had in the days before the experiment, for CUPED.

    Args:
        start: the experiment's first second, the same for all users: nothing on or after it may count, because the
            treatment could have caused it.
        days: length of the period before it.
        name: the new column.
    """
    past = (
        outcomes.filter(pl.col("event_time") >= start - days * 86_400, pl.col("event_time") < start)
        .unique("event_id")
        .group_by("user_id")
        .agg(pl.len().alias(name))
        .collect()
    )
    return users.join(past, on="user_id", how="left", maintain_order="left").with_columns(pl.col(name).fill_null(0))


def lost_answers(exposures: pl.LazyFrame, answered: Mapping[str, int], *, experiment: str) -> dict[str, float]:
    """Return, by arm, the share of the answers that have no row in the log.

    Args:
        answered: requests of the same time that the servers count as answered (`sidrec_answers_total`).
    """
    counts = exposures.filter(pl.col("experiment") == experiment).group_by("arm").len().collect()
    logged: dict[str, int] = dict(counts.iter_rows())
    return {arm: 1 - logged.get(arm, 0) / count for arm, count in answered.items() if count > 0}
