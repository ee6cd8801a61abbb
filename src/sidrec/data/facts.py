"""The batch tier's facts: one number each, its limits, and the sentence that a refusal prints."""

from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

import polars as pl

from sidrec.clock import day_start
from sidrec.data.adapters.items import CATALOG_ITEM
from sidrec.data.adapters.source import Source
from sidrec.data.adapters.table import EARLIEST, LATEST
from sidrec.data.cleaning import WATERMARK_RULE, Cleaned
from sidrec.data.config import ValidationConfig
from sidrec.data.events import day_of

NUM_WEEKS = 8
MOSTLY = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A measured value and where it may lie; `value` is None where it cannot be measured, and `sentence` says why."""

    rule: str
    value: float | None
    sentence: str
    at_least: float | None = None
    at_most: float | None = None


def batch_facts(
    source: Source, cleaned: Cleaned, limits: ValidationConfig, *, gate_start: date, as_of: date
) -> list[Fact]:
    """Return the facts that a whole batch is judged by, the most telling first."""
    facts = [_known_times(source), _time_range(source)]
    if source.items is not None:
        facts.append(_known_items(source, limits))
    facts += [
        _quarantined(source, cleaned, limits),
        Fact(
            rule="min_events",
            value=cleaned.events.height,
            at_least=limits.min_events,
            sentence=f"{cleaned.events.height:,} events are left after cleaning (at least {limits.min_events:,})",
        ),
    ]
    facts += _windows(cleaned, gate_start, as_of)
    facts.append(_age(source, cleaned, limits, as_of))
    facts += _volumes(source, cleaned, limits, as_of)
    return facts


def _known_times(source: Source) -> Fact:
    times = source.rows["timestamp"]
    share = 1 - times.null_count() / len(times)
    return Fact(
        rule="timestamp_readable",
        value=share,
        at_least=MOSTLY,
        sentence=f"{share:.1%} of the timestamps are a time (at least {MOSTLY:.0%}): is another column in its place?",
    )


def _time_range(source: Source) -> Fact:
    times = source.rows["timestamp"].drop_nulls()
    inside = times.is_between(EARLIEST, LATEST)
    share = float(inside.mean() or 0.0)  # type: ignore[arg-type]
    return Fact(
        rule="timestamp_range",
        value=share,
        at_least=MOSTLY,
        sentence=f"{share:.1%} of the timestamps lie in 1990..2100 (at least {MOSTLY:.0%}): ids, or another unit than "
        "data.timestamp_unit?",
    )


def _known_items(source: Source, limits: ValidationConfig) -> Fact:
    """Return the share of events whose item the items file has; a swap with user_id is told apart."""
    assert source.items is not None
    with_item = source.rows.filter(pl.col("item_id").is_not_null())
    share = 1 - with_item[CATALOG_ITEM].null_count() / max(with_item.height, 1)
    swapped = source.rows["user_id"].is_in(source.items["item_id"].implode()).mean() or 0.0
    hint = "; user_id holds the items: the two columns are swapped" if float(swapped) > share else ""  # type: ignore[arg-type]
    return Fact(
        rule="known_items",
        value=share,
        at_least=limits.min_known_item_share,
        sentence=f"{share:.1%} of the events name an item of the items file "
        f"(at least {limits.min_known_item_share:.0%}){hint}",
    )


def _quarantined(source: Source, cleaned: Cleaned, limits: ValidationConfig) -> Fact:
    """Return the share of rows in quarantine, those after the watermark aside: they are no fault."""
    counts = cleaned.quarantine.filter(pl.col("rule") != WATERMARK_RULE).group_by("rule", "reason").len()
    considered = source.rows.height - cleaned.quarantine.filter(pl.col("rule") == WATERMARK_RULE).height
    share = int(counts["len"].sum()) / max(considered, 1)
    worst = ""
    if counts.height:
        rule, reason, rows = counts.sort("len", "rule", descending=[True, False]).row(0)
        worst = f", most of them ({rows:,}) by {rule}: {reason}"
    return Fact(
        rule="quarantined_share",
        value=share,
        at_most=limits.max_quarantined_share,
        sentence=f"{share:.1%} of the rows are quarantined (at most {limits.max_quarantined_share:.0%}){worst}",
    )


def _windows(cleaned: Cleaned, gate_start: date, as_of: date) -> list[Fact]:
    times = cleaned.events["timestamp"]
    fit = int((times < day_start(gate_start)).sum())
    gate = int(times.is_between(day_start(gate_start), day_start(as_of), closed="left").sum())
    span = "no event at all"
    if len(times):
        first, last = cleaned.events.select(first=day_of().min(), last=day_of().max()).row(0)
        span = f"the data span {first} to {last}"
    return [
        Fact(rule="fit_window", value=fit, at_least=1, sentence=f"{fit:,} events before {gate_start}; {span}"),
        Fact(
            rule="gate_window", value=gate, at_least=1, sentence=f"{gate:,} events in [{gate_start}, {as_of}); {span}"
        ),
    ]


def _age(source: Source, cleaned: Cleaned, limits: ValidationConfig, as_of: date) -> Fact:
    newest = cleaned.sales.select(day_of().max()).item()
    if not source.has_calendar or newest is None or limits.max_age_days is None:
        why = "validation.max_age_days is off" if limits.max_age_days is None else "there is no calendar"
        return Fact(rule="freshness", value=None, sentence=f"not checked: {why}")
    age = max((as_of - newest).days, 0)
    return Fact(
        rule="freshness",
        value=age,
        at_most=limits.max_age_days,
        sentence=f"the newest sale is {age} days older than as_of {as_of} (at most {limits.max_age_days})",
    )


def _volumes(source: Source, cleaned: Cleaned, limits: ValidationConfig, as_of: date) -> list[Fact]:
    """Return the volume of the file's last day, and of its last day before `as_of` where that is another one."""
    if not source.has_calendar:
        return [Fact(rule="last_day_volume", value=None, sentence="not checked: there is no calendar")]
    counts: dict[date, int] = dict(cleaned.sales.select(day=day_of()).drop_nulls().group_by("day").len().iter_rows())
    days = sorted({max(days) for days in (list(counts), [d for d in counts if d < as_of]) if days}, reverse=True)
    if not days:
        return [Fact(rule="last_day_volume", value=None, sentence="not checked: no sale is left")]
    return [_volume(day, counts, limits) for day in days]


def _volume(day: date, counts: dict[date, int], limits: ValidationConfig) -> Fact:
    """Return a day's sales over the median of its last 8 equal weekdays; a weekday without sales counts as 0."""
    earlier = [day - timedelta(weeks=weeks) for weeks in range(1, NUM_WEEKS + 1)]
    if min(counts) > earlier[-1]:
        return Fact(
            rule="last_day_volume",
            value=None,
            sentence=f"not checked: the data begin less than {NUM_WEEKS} weeks before {day}",
        )
    usual = median(counts.get(other, 0) for other in earlier)
    if usual == 0:
        return Fact(
            rule="last_day_volume", value=None, sentence=f"not checked: most {day:%A}s before {day} have no sale"
        )
    share = counts[day] / usual
    return Fact(
        rule="last_day_volume",
        value=share,
        at_least=limits.min_last_day_volume,
        sentence=f"{day} has {counts[day]:,} sales, {share:.0%} of the median {usual:,.0f} of its last {NUM_WEEKS} "
        f"{day:%A}s (at least {limits.min_last_day_volume:.0%}); if the extract ended within that day, set "
        f"data.watermark: {day}",
    )
