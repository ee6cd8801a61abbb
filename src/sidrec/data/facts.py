"""The batch tier's facts: one number each, its limits, and the sentence that a refusal prints."""

from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from sidrec.data.cleaning import WATERMARK_RULE
from sidrec.data.config import ValidationConfig
from sidrec.data.counting import Counts

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


def batch_facts(counts: Counts, limits: ValidationConfig, *, gate_start: date, as_of: date) -> list[Fact]:
    """Return the facts that a whole batch is judged by, the most telling first."""
    facts = [_known_times(counts), _time_range(counts)]
    if counts.has_items:
        facts.append(_known_items(counts, limits))
    facts += [
        _quarantined(counts, limits),
        Fact(
            rule="min_events",
            value=counts.events,
            at_least=limits.min_events,
            sentence=f"{counts.events:,} events are left after cleaning (at least {limits.min_events:,})",
        ),
    ]
    facts += _windows(counts, gate_start, as_of)
    facts.append(_age(counts, limits, as_of))
    facts += _volumes(counts, limits, as_of)
    return facts


def _known_times(counts: Counts) -> Fact:
    share = counts.known_times / counts.rows
    return Fact(
        rule="timestamp_readable",
        value=share,
        at_least=MOSTLY,
        sentence=f"{share:.1%} of the timestamps are a time (at least {MOSTLY:.0%}): is another column in its place?",
    )


def _time_range(counts: Counts) -> Fact:
    share = counts.plausible_times / max(counts.known_times, 1)
    return Fact(
        rule="timestamp_range",
        value=share,
        at_least=MOSTLY,
        sentence=f"{share:.1%} of the timestamps lie in 1990..2100 (at least {MOSTLY:.0%}): ids, or another unit than "
        "data.timestamp_unit?",
    )


def _known_items(counts: Counts, limits: ValidationConfig) -> Fact:
    """Return the share of events whose item the items file has; a swap with user_id is told apart."""
    share = 1 - (counts.with_item - counts.known_items) / max(counts.with_item, 1)
    swapped = counts.users_that_are_items / max(counts.rows - counts.no_user, 1)
    hint = "; user_id holds the items: the two columns are swapped" if swapped > share else ""
    return Fact(
        rule="known_items",
        value=share,
        at_least=limits.min_known_item_share,
        sentence=f"{share:.1%} of the events name an item of the items file "
        f"(at least {limits.min_known_item_share:.0%}){hint}",
    )


def _quarantined(counts: Counts, limits: ValidationConfig) -> Fact:
    """Return the share of rows in quarantine, those after the watermark aside: they are no fault."""
    bad = {
        rule: counts.dropped[rule.rule]
        for rule in counts.rules
        if rule.action == "quarantine" and rule.rule != WATERMARK_RULE and rule.rule in counts.dropped
    }
    share = sum(bad.values()) / max(counts.rows - counts.dropped.get(WATERMARK_RULE, 0), 1)
    worst = ""
    if bad:
        rule, rows = min(bad.items(), key=lambda one: (-one[1], one[0].rule))
        worst = f", most of them ({rows:,}) by {rule.rule}: {rule.reason}"
    return Fact(
        rule="quarantined_share",
        value=share,
        at_most=limits.max_quarantined_share,
        sentence=f"{share:.1%} of the rows are quarantined (at most {limits.max_quarantined_share:.0%}){worst}",
    )


def _windows(counts: Counts, gate_start: date, as_of: date) -> list[Fact]:
    days = counts.event_days
    fit = sum(rows for day, rows in days.items() if day < gate_start)
    gate = sum(rows for day, rows in days.items() if gate_start <= day < as_of)
    span = f"the data span {min(days)} to {max(days)}" if days else "no event at all"
    return [
        Fact(rule="fit_window", value=fit, at_least=1, sentence=f"{fit:,} events before {gate_start}; {span}"),
        Fact(
            rule="gate_window", value=gate, at_least=1, sentence=f"{gate:,} events in [{gate_start}, {as_of}); {span}"
        ),
    ]


def _age(counts: Counts, limits: ValidationConfig, as_of: date) -> Fact:
    newest = max(counts.sale_days, default=None)
    if not counts.has_calendar or newest is None or limits.max_age_days is None:
        why = "validation.max_age_days is off" if limits.max_age_days is None else "there is no calendar"
        return Fact(rule="freshness", value=None, sentence=f"not checked: {why}")
    age = max((as_of - newest).days, 0)
    return Fact(
        rule="freshness",
        value=age,
        at_most=limits.max_age_days,
        sentence=f"the newest sale is {age} days older than as_of {as_of} (at most {limits.max_age_days})",
    )


def _volumes(counts: Counts, limits: ValidationConfig, as_of: date) -> list[Fact]:
    """Return the volume of the file's last day, and of its last day before `as_of` where that is another one."""
    if not counts.has_calendar:
        return [Fact(rule="last_day_volume", value=None, sentence="not checked: there is no calendar")]
    volumes = counts.sale_days
    days = sorted({max(days) for days in (list(volumes), [d for d in volumes if d < as_of]) if days}, reverse=True)
    if not days:
        return [Fact(rule="last_day_volume", value=None, sentence="not checked: no sale is left")]
    return [_volume(day, volumes, limits) for day in days]


def _volume(day: date, volumes: dict[date, int], limits: ValidationConfig) -> Fact:
    """Return a day's sales over the median of its last 8 equal weekdays; a weekday without sales counts as 0."""
    earlier = [day - timedelta(weeks=weeks) for weeks in range(1, NUM_WEEKS + 1)]
    if min(volumes) > earlier[-1]:
        return Fact(
            rule="last_day_volume",
            value=None,
            sentence=f"not checked: the data begin less than {NUM_WEEKS} weeks before {day}",
        )
    usual = median(volumes.get(other, 0) for other in earlier)
    if usual == 0:
        return Fact(
            rule="last_day_volume", value=None, sentence=f"not checked: most {day:%A}s before {day} have no sale"
        )
    share = volumes[day] / usual
    return Fact(
        rule="last_day_volume",
        value=share,
        at_least=limits.min_last_day_volume,
        sentence=f"{day} has {volumes[day]:,} sales, {share:.0%} of the median {usual:,.0f} of its last {NUM_WEEKS} "
        f"{day:%A}s (at least {limits.min_last_day_volume:.0%}); if the extract ended within that day, set "
        f"data.watermark: {day}",
    )
