"""How each arm of a revision fares, from the exposure log: who is answered, from what, how fast, with which beams.

An answer that failed leaves no row, so an arm's errors are the users and the answers that it lacks.
"""

from dataclasses import dataclass

import polars as pl

from sidrec.release.revision import Revision

_HEALTH = (
    pl.len().alias("answers"),
    (pl.col("source") == "cold").mean().alias("cold"),
    (pl.col("source") == "degraded").mean().alias("degraded"),
    pl.col("latency_ms").quantile(0.99).alias("p99_ms"),
    pl.col("valid").mean().alias("valid_beams"),
    pl.col("valid").var().alias("valid_variance"),
    pl.col("valid").count().alias("searches"),
)


@dataclass(frozen=True, slots=True)
class ArmHealth:
    """One arm's answers under one revision."""

    users: int
    answers: int
    per_user_variance: float
    cold: float
    degraded: float
    p99_ms: float
    slower: float
    """Share of its answers that took longer than the limit: a multiple of the champion's 99th percentile."""
    valid_beams: float
    valid_variance: float
    searches: int

    @property
    def per_user(self) -> float:
        """Answers a user."""
        return self.answers / self.users if self.users else 0.0


NOTHING = ArmHealth(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def arm_health(exposures: pl.LazyFrame, revision: Revision, *, slow: float) -> dict[str, ArmHealth]:
    """Return the health of every arm that answered users of a revision's experiment.

    Args:
        slow: limit of latency, as a multiple of the champion's 99th percentile.
    """
    champion = revision.arms[0].name
    # Rows of users whom the experiment may not have name none.
    counted = (pl.col("revision") == revision.revision) & (pl.col("experiment") == revision.experiment)
    rows = exposures.filter(counted).select(
        "arm",
        "source",
        "latency_ms",
        # Who names no user is drawn by the request.
        pl.coalesce("user_id", "request_id").alias("user"),
        pl.when((pl.col("source") == "model") & (pl.col("beam_width") > 0))
        .then(pl.col("valid_beams") / pl.col("beam_width"))
        .alias("valid"),
    )
    by_user = rows.group_by("arm", "user").len().group_by("arm")
    users = by_user.agg(pl.len().alias("users"), pl.col("len").cast(pl.Float64).var().alias("per_user_variance"))
    limit = rows.filter(pl.col("arm") == champion).select(pl.col("latency_ms").quantile(0.99) * slow).collect()
    at_most = float("inf") if limit[0, 0] is None else float(limit[0, 0])
    health = rows.group_by("arm").agg(*_HEALTH, (pl.col("latency_ms") > at_most).mean().alias("slower"))
    table = health.join(users, on="arm").fill_null(0).collect()
    return {str(row.pop("arm")): ArmHealth(**row) for row in table.iter_rows(named=True)}
