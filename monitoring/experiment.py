"""The logs of one experiment's phase as what its read-out needs: one row a user, and the requests behind it.

A phase is a time of constant shares: one revision, from its first exposure to the first of a later one. All times
are the event clock's, unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from monitoring import labels, windows
from sidrec import outcome
from sidrec.clock import DAY_S
from sidrec.errors import UsageError
from sidrec.experiment.plan import Plan
from sidrec.experiment.simulation import SURFACE
from sidrec.experiment.users import by_user, lost_answers, with_past
from sidrec.release.revision import Revision, assign

PAST = "past"
NEW = "new_user"


@dataclass(frozen=True, slots=True)
class Phase:
    """Users whose window is closed, and the phase's requests with the items that were taken from them."""

    users: pl.DataFrame
    requests: pl.LazyFrame
    hits: pl.DataFrame
    since: int
    until: int
    lost: dict[str, float] | None
    simulated: bool
    """Rows of the simulator are among them: whoever shows a number says so."""

    @property
    def days(self) -> float:
        """Days from the phase's first exposure to its end."""
        return (self.until - self.since) / DAY_S


def phase_plan(plan: Plan, revision: Revision) -> Plan:
    """Return the plan with the shares of this phase's revision; everything else is as it was frozen.

    Raises:
        UsageError: the revision is of another experiment, or has other arms than the plan.
    """
    if revision.experiment != plan.experiment:
        raise UsageError(
            f"revision {revision.revision} runs experiment {revision.experiment or 'none'}, the plan is of "
            f"{plan.experiment}",
            next_step="--revision FILE of the revision that ran it (sidrec ledger show)",
        )
    shares = {arm.name: arm.share for arm in revision.arms if arm.share > 0}
    if set(shares) != set(plan.shares):
        raise UsageError(
            f"revision {revision.revision} has arms {', '.join(shares)}, the plan has {', '.join(plan.shares)}",
            next_step="read it with the plan that was frozen for these arms",
        )
    return Plan.model_validate({**plan.model_dump(), "shares": shares})


def gather(
    plan: Plan,
    revision: Revision,
    exposures: Path,
    outcomes: Path,
    *,
    since: int | None = None,
    until: int | None = None,
    answered: Mapping[str, int] | None = None,
) -> Phase:
    """Return the phase of a revision.

    The users' table has the columns of `by_user`, `past` (outcomes in the plan's `past_days` before the phase) and
    `new_user` (no outcome before it).

    Args:
        since: first second of the phase; left out, the revision's first exposure.
        until: now; left out, the first exposure of a later revision, else just after the newest row of both logs.
        answered: requests of this time that the servers count as answered, by arm.

    Raises:
        UsageError: the log has no exposure of the experiment, or none of the revision.
    """
    logged = windows.scan_exposures(exposures)
    own = logged.filter(pl.col("experiment") == plan.experiment)
    first, later = _times(own, logged, revision.revision)
    since = first if since is None else since
    if since is None:
        raise UsageError(
            f"no exposure of experiment {plan.experiment} by revision {revision.revision} in {exposures}; "
            f"there are {_seen(logged)}",
            next_step="--exposures FOLDER, --revision FILE, or --since DAY",
        )
    bought = outcome.read(outcomes)
    if until is None:
        until = later if later is not None else _newest(logged, bought) + 1
    # What a user took from an answer outside the experiment is no arm's, though an arm showed the same item.
    elsewhere = logged.filter(pl.col("experiment").ne_missing(plan.experiment)).select("request_id").unique()
    events = bought.lazy().filter(pl.col("event_time") < until)
    distinct = windows.distinct_requests(own.filter(pl.col("event_time") < until))
    requests = distinct.filter(pl.col("event_time") >= since)
    hits = labels.attribute(distinct, events.join(elsewhere, on="request_id", how="anti")).hits
    users = by_user(
        distinct,
        hits.lazy(),
        experiment=plan.experiment,
        bundles={arm.name: arm.bundle.bundle_id for arm in revision.arms},
        window_s=plan.window_days * DAY_S,
        until=until,
        since=since,
        assigned=lambda user: _arm_of(user, revision),
    )
    return Phase(
        users=with_history(users, events, since, plan.past_days),
        requests=requests,
        hits=hits,
        since=since,
        until=until,
        lost=lost_answers(requests, answered, experiment=plan.experiment) if answered else None,
        simulated=not requests.filter(pl.col("surface") == SURFACE).head(1).collect().is_empty(),
    )


def _arm_of(user: str, revision: Revision) -> str | None:
    found = assign(user, revision)
    return found.arm.name if found.counts else None


def before(plan: Plan, exposures: Path, outcomes: Path, *, until: int | None = None) -> pl.DataFrame:
    """Return users of the newest time that is as long as the plan's least duration, whatever ran then.

    It is what the sizes of an experiment are computed from: `min_days` in which users enter, each followed for
    `window_days`.

    Raises:
        UsageError: no user's window is closed.
    """
    logged, bought = windows.scan_exposures(exposures), outcome.read(outcomes)
    end = _newest(logged, bought) + 1 if until is None else until
    since = end - (plan.min_days + plan.window_days) * DAY_S
    events = bought.lazy().filter(pl.col("event_time") < end)
    requests = windows.distinct_requests(logged.filter(pl.col("event_time") >= since, pl.col("event_time") < end))
    hits = labels.attribute(requests, events.filter(pl.col("event_time") >= since)).hits.lazy()
    window_s = plan.window_days * DAY_S
    users = by_user(requests, hits, experiment=None, bundles={}, window_s=window_s, until=end, since=since)
    if users.is_empty():
        raise UsageError(
            f"no user in {exposures} was followed for {plan.window_days} days up to the newest row",
            next_step="--users FILE, one row a user with the plan's columns",
        )
    return with_history(users, events, since, plan.past_days)


def with_history(users: pl.DataFrame, events: pl.LazyFrame, since: int, past_days: int) -> pl.DataFrame:
    """Return the users with what they did before the phase: `past` and `new_user`."""
    old = events.filter(pl.col("event_time") < since).select("user_id").unique().collect()["user_id"]
    counted = with_past(users, events, start=since, days=past_days, name=PAST)
    return counted.with_columns(~pl.col("user_id").is_in(old.implode()).alias(NEW))


def with_attributes(users: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the users with the columns of a Parquet or CSV file, one row a `user_id`; who is not in it has none.

    Raises:
        UsageError: the file lacks `user_id`, has a user twice, or a column that the table has already.
    """
    table = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    if "user_id" not in table.columns:
        raise UsageError(f"{path} has no column user_id; it has {', '.join(table.columns)}", evidence=path)
    table = table.with_columns(pl.col("user_id").cast(pl.String))
    if twice := table.filter(pl.col("user_id").is_duplicated())["user_id"].head(1).to_list():
        raise UsageError(f"{path} has user {twice[0]!r} twice; one row a user is expected", evidence=path)
    if clash := sorted((set(table.columns) & set(users.columns)) - {"user_id"}):
        raise UsageError(f"{path} has {', '.join(clash)}, which the logs give", evidence=path, next_step="rename them")
    return users.join(table, on="user_id", how="left", maintain_order="left")


def _times(own: pl.LazyFrame, logged: pl.LazyFrame, revision: int) -> tuple[int | None, int | None]:
    """Return the revision's first exposure, and the first one after it of a later revision, of the experiment or none.

    A stop is such a revision: what users do once the champion answers them again is no arm's.
    """
    number, time = pl.col("revision"), pl.col("event_time")
    first = own.select(time.filter(number == revision).min()).collect().item()
    later = logged.select(time.filter(number > revision).min()).collect().item()
    return first, later if first is not None and later is not None and later > first else None


def _newest(logged: pl.LazyFrame, bought: pl.DataFrame) -> int:
    times = [logged.select(pl.col("event_time").max()).collect().item(), bought["event_time"].max()]
    return max((int(time) for time in times if time is not None), default=0)


def _seen(logged: pl.LazyFrame) -> str:
    rows = logged.drop_nulls("experiment").select("experiment", "revision").unique().collect()
    found = sorted(f"{experiment} (revision {revision})" for experiment, revision in rows.iter_rows())
    return ", ".join(found[:5]) or "none of any experiment"
