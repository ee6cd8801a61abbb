"""The logs of exploring users as a pre-read needs them: items drawn, what was taken, and a shadow's answers."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from monitoring import labels, windows
from sidrec import exposure, outcome
from sidrec.clock import DAY_S
from sidrec.errors import UsageError
from sidrec.experiment.simulation import SURFACE


@dataclass(frozen=True, slots=True)
class Draws:
    """One champion's drawn answers whose outcomes are final, by item, and another bundle's to the same requests."""

    drawn: pl.DataFrame
    answers: pl.DataFrame
    champion: str
    bundle_id: str
    simulated: bool


def gather(
    exposures: Path, shadow: Path, outcomes: Path, *, bundle: str | None = None, until: int | None = None
) -> Draws:
    """Return what exploring users were shown, and what the shadow would have shown them.

    Draws from the champion that answered last count, because another one's best answers are other answers. A request
    counts once its attribution time is over. What its user took counts by the rule of every report
    (`labels.attribute`): by the request named, else the first that showed the item.

    Args:
        shadow: exposure segments of the shadow's answers.
        bundle: whose answers in the shadow's log; left out, the bundle that answered last.
        until: now, unix seconds of the event clock; left out, just after the newest row of both logs.

    Raises:
        UsageError: nothing was drawn, or no shadow answered.
    """
    logged, bought = windows.scan_exposures(exposures), outcome.read(outcomes).lazy()
    others = exposure.scan(shadow)
    name = windows.newest_bundle(others) if bundle is None else bundle
    if name is None:
        raise UsageError(
            f"no shadow answered in {shadow}, so there are no other answers to judge",
            next_step="put the bundle to be judged behind the champion as its shadow",
        )
    end = _newest(logged, bought) + 1 if until is None else until
    requests = windows.distinct_requests(logged.filter(pl.col("event_time") < end))
    explored = requests.filter(pl.col("propensities").is_not_null())
    champion = windows.newest_bundle(explored)
    closed = pl.col("event_time") + labels.ATTRIBUTION_DAYS * DAY_S < end
    final = explored.filter(closed, pl.col("bundle_id") == pl.lit(champion, dtype=pl.String))
    hits = labels.attribute(requests, bought.filter(pl.col("event_time") < end)).hits.select("request_id", "item_id")
    drawn = (
        # A request without a user is a user of its own.
        final.select(
            "request_id",
            pl.col("user_id").fill_null(pl.col("request_id")),
            "surface",
            item_id="item_ids",
            rank="ranks",
            propensity="propensities",
        )
        .explode("item_id", "rank", "propensity")
        .join(hits.lazy().with_columns(taken=1), on=["request_id", "item_id"], how="left")
        .with_columns(pl.col("taken").fill_null(0))
        .sort("request_id", "rank")
        .collect()
    )
    if champion is None or drawn.is_empty():
        raise UsageError(
            f"no drawn answer of the present champion in {exposures} is older than {labels.ATTRIBUTION_DAYS} days",
            next_step="sidrec ab explore --share 0.02 --temperature 1 --reason '…', and wait",
        )
    answers = windows.distinct_requests(others.filter(pl.col("bundle_id") == name)).select("request_id", "item_ids")
    return Draws(
        drawn=drawn.drop("surface"),
        answers=answers.collect(),
        champion=champion,
        bundle_id=name,
        simulated=bool((drawn["surface"] == SURFACE).any()),
    )


def _newest(logged: pl.LazyFrame, bought: pl.LazyFrame) -> int:
    times = [one.select(pl.col("event_time").max()).collect().item() for one in (logged, bought)]
    return max((int(time) for time in times if time is not None), default=0)
