"""Thresholds that unchanged traffic does not reach: A/A windows of resampled customers, and how often they cry wolf.

Thresholds are set on some windows (`resampling`) and checked on others.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from scipy.stats import beta

from monitoring import aggregate, counting, decide, measures, readings
from monitoring.readings import CodeSpace, Reading, Readings
from monitoring.report import Sources, spaces
from monitoring.resampling import (
    QUALITY_N,
    QUALITY_TOTAL,
    TAKEN,
    Customers,
    buying_customers,
    draw_window,
    requesting_customers,
    sampled,
)
from monitoring.thresholds import DISTANCES, Calibration, Rule, Thresholds
from monitoring.windows import Window, distinct_requests, newest_time, outcome_purchases, scan_exposures
from sidrec import outcome
from sidrec.errors import InconclusiveError, UsageError
from sidrec.recipe import MonitoringConfig, Recipe

MARGIN = 1.25
"""A threshold lies this much above the largest effect that chance alone had."""
CONFIDENCE = 0.99
FEWEST_CUSTOMERS = 50
MOST_ROWS = 400_000
"""Requests in memory; of a longer log as many customers as have them."""


def request_effects(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    space: CodeSpace | None,
    thresholds: Thresholds,
    config: MonitoringConfig,
    *,
    seed: int,
) -> dict[str, float]:
    """Return how far each metric of one A/A window is from its reference, by name."""
    coded = (_with_codes(table, space) for table in (current, reference))
    now, before = coded
    effects = {
        measure.kind: measure.value
        for measure in measures.measure_week(before, now, config, seed=seed)
        if thresholds.rule(measure.kind) is not None
    }
    places = min(aggregate.total_of(table, aggregate.SERVED) for table in (now, before))
    figures, figures_before = (_figures(table, space, places) for table in (now, before))
    for name, reading in figures.items():
        rule, other = thresholds.rule(name), figures_before.get(name)
        if rule is None or other is None or rule.unit in DISTANCES or min(reading.n, other.n) < rule.min_n:
            continue
        effect = decide.effect_of(rule.unit, reading.value, other.value)
        if effect is not None:
            effects[name] = effect
    return effects


def purchase_effects(current: pl.DataFrame, reference: pl.DataFrame) -> dict[str, float]:
    """Return the effects of purchases that have a rule of their own."""
    before, now = (aggregate.counts_of(table, aggregate.BOUGHT) for table in (reference, current))
    return {"top_gain": decide.top_gain(before, now)[0]}


def raised(thresholds: Thresholds, windows: Sequence[Mapping[str, float]]) -> Thresholds:
    """Return thresholds whose warnings lie `MARGIN` above every effect of these windows; none is lowered."""
    largest: dict[str, float] = {}
    for window in windows:
        for name, effect in window.items():
            key = _key(thresholds, name)
            largest[key] = max(largest.get(key, 0.0), effect)
    rules = {}
    for key, rule in thresholds.rules.items():
        warn = max(rule.warn, round(MARGIN * largest.get(key, 0.0), 3))
        alarm = None if rule.alarm is None else max(rule.alarm, warn)
        rules[key] = rule.model_copy(update={"warn": warn, "alarm": alarm})
    return thresholds.model_copy(update={"rules": rules})


def over_in(thresholds: Thresholds, window: Mapping[str, float]) -> set[str]:
    """Return the metrics of a window that are over their thresholds."""
    return {name for name, effect in window.items() if effect >= _rule(thresholds, name).warn}


def warned_in(thresholds: Thresholds, windows: Sequence[set[str]]) -> int:
    """Return in how many of these windows, taken for successive ones, any metric would have warned."""
    warned = 0
    for place, over in enumerate(windows):
        for name in over:
            rule = _rule(thresholds, name)
            recent = windows[max(0, place - rule.of + 1) : place + 1]
            if sum(name in one for one in recent) >= rule.needed:
                warned += 1
                break
    return warned


def upper_bound(hits: int, of: int) -> float:
    """Return the one-sided 99 % binomial (Clopper-Pearson) bound of a share."""
    return 1.0 if hits >= of else float(beta.ppf(CONFIDENCE, hits + 1, of - hits))


def calibrate(
    thresholds: Thresholds,
    requesting: Customers | None,
    buying: Customers | None,
    space: CodeSpace | None,
    config: MonitoringConfig,
    *,
    windows: int,
    requests: int,
    purchases: int,
    days: tuple[date, date],
    seed: int,
) -> Thresholds:
    """Return thresholds set on `windows` A/A windows, with how often they are over on as many others.

    Args:
        requests: rows of one window.
        purchases: likewise.
        days: first and last day whose customers are drawn.

    Raises:
        InconclusiveError: there are too few customers to draw from.
    """
    for name, customers in (("requests", requesting), ("purchases", buying)):
        if customers is not None and (customers.rows > 0).sum() < FEWEST_CUSTOMERS:
            raise InconclusiveError(
                f"{name} of {int((customers.rows > 0).sum())} customers, {FEWEST_CUSTOMERS} are needed to draw windows",
                next_step="choose more days (--from, --to), or wait for more traffic",
            )
    drawn = list(_windows(thresholds, requesting, buying, space, config, 2 * windows, requests, purchases, seed))
    fitted = raised(thresholds, drawn[:windows])
    over = [over_in(fitted, window) for window in drawn[windows:]]
    hits = sum(bool(names) for names in over)
    calibration = Calibration(
        windows=windows,
        fitted_windows=windows,
        requests=requests,
        over=hits,
        over_bound=round(upper_bound(hits, windows), 4),
        warned=warned_in(fitted, over),
        first_day=days[0],
        last_day=days[1],
        raised={key: rule.warn for key, rule in fitted.rules.items() if rule.warn > thresholds.rules[key].warn},
    )
    return fitted.model_copy(update={"calibration": calibration})


def _windows(
    thresholds: Thresholds,
    requesting: Customers | None,
    buying: Customers | None,
    space: CodeSpace | None,
    config: MonitoringConfig,
    number: int,
    requests: int,
    purchases: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    rng = np.random.default_rng(seed)
    for window in range(number):
        effects: dict[str, float] = {}
        if requesting is not None:
            now, before = draw_window(requesting, requests, rng)
            effects |= request_effects(now, before, space, thresholds, config, seed=seed + window)
        if buying is not None:
            effects |= purchase_effects(*draw_window(buying, purchases, rng))
        yield effects


def _with_codes(table: pl.DataFrame, space: CodeSpace | None) -> pl.DataFrame:
    """Return counts with those of the codes of the items served."""
    if space is None:
        return table
    served = table.filter(pl.col("kind") == aggregate.SERVED).select(item_id="key", count="count")
    codes = served.join(space.catalogue.select("item_id", "codes"), on="item_id").lazy()
    return pl.concat([table, aggregate.code_table(aggregate.SERVED_CODES, codes)])


def _figures(table: pl.DataFrame, space: CodeSpace | None, places: int) -> Readings:
    found = readings.answer_readings(table)
    n = aggregate.counts_of(table, QUALITY_N)
    totals = aggregate.counts_of(table, QUALITY_TOTAL)
    found |= {name: Reading(totals.get(name, 0) / 1e6 / count, count) for name, count in n.items()}
    if space is None:
        return found
    served, taken = (
        table.filter(pl.col("kind") == kind).select(item_id="key", count="count") for kind in (aggregate.SERVED, TAKEN)
    )
    return found | readings.item_readings(space, served, taken, places=places)


def _key(thresholds: Thresholds, name: str) -> str:
    rule = _rule(thresholds, name)
    return next(key for key, own in thresholds.rules.items() if own is rule)


def _rule(thresholds: Thresholds, name: str) -> Rule:
    rule = thresholds.rule(name)
    assert rule is not None
    return rule


def of_logs(
    sources: Sources, recipe: Recipe, thresholds: Thresholds, *, days: tuple[date, date] | None, windows: int
) -> Thresholds:
    """Return thresholds calibrated on the customers of the logs, by windows as large as a week was.

    Args:
        days: first and last day whose customers are drawn; left out, the newest four weeks.
        windows: A/A windows to set them on, and as many to check them on.

    Raises:
        UsageError: the logs hold nothing in these days.
        InconclusiveError: there are too few customers.
    """
    logged, outcomes = scan_exposures(sources.exposures), outcome.read(sources.outcomes).lazy()
    watermark = newest_time(logged, outcomes)
    if watermark is None:
        raise UsageError(
            f"nothing in {sources.exposures} and {sources.outcomes} to calibrate on",
            next_step="sidrec replay --from FIRST --to LAST",
        )
    first, last = days or newest_days(watermark)
    span = Window(first, last + timedelta(days=1))
    weeks = (span.end - span.start).days / 7
    space = next(spaces(sources, recipe), None)
    bundle_id = None if space is None else space.bundle_id
    rows = distinct_requests(span.rows(logged)).select(counting.COLUMNS)
    own = rows.filter(pl.col("bundle_id") == pl.lit(bundle_id, dtype=pl.String)).collect(engine="streaming")
    own = sampled(own, MOST_ROWS)
    purchases = span.days(outcome_purchases(outcomes)).collect()
    if own.is_empty() and purchases.is_empty():
        raise UsageError(
            f"no request of bundle {bundle_id} and no purchase in {span}", next_step="--from, --to, --bundle"
        )
    return calibrate(
        thresholds,
        None if own.is_empty() else requesting_customers(own, outcomes, space, watermark=watermark),
        None if purchases.is_empty() else buying_customers(purchases),
        space,
        recipe.monitoring,
        windows=windows,
        requests=round(own.height / weeks),
        purchases=round(purchases.height / weeks),
        days=(first, last),
        seed=recipe.seed,
    )


def newest_days(watermark: int, weeks: int = 4) -> tuple[date, date]:
    """Return the first and last day of so many weeks up to a time."""
    last = datetime.fromtimestamp(watermark, UTC).date()
    return last - timedelta(days=7 * weeks - 1), last
