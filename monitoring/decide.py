"""From counts to findings: how far each metric of each arm moved, whether that is enough, and for how long.

A finding needs an effect, enough rows on both sides, and enough of the last windows; one window alone warns of nothing
but purchases, whose rule is the recipe's. Every window is compared again from the counts, so nothing is remembered
between reports and a report of an old week says what it said then.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from monitoring import labels, measures, readings
from monitoring.counting import Tally
from monitoring.findings import ALL_ARMS, Area, Finding, Level
from monitoring.item_drift import ItemDrift, align
from monitoring.layout import Comparison, Layout
from monitoring.readings import CodeSpace, Readings
from monitoring.thresholds import Rule, Thresholds, Unit
from sidrec.recipe import MonitoringConfig

ITEMS_BOUGHT = "items_bought"
TOP_ITEMS = 10
_OF_LABELS = frozenset(readings.label_names())
_FEATURES = frozenset(
    {"history_source", "history_length", "known_share", "known_items", "feature_age_days", "surface"}
    | {"null_history", "feature_age"}
)
# An arm that is new has no past; what its requests bring along and how evenly it uses codes can be held beside another.
_BESIDE = ("served/", "null_history", "feature_age", "history_", "known_", "surface")


@dataclass(frozen=True, slots=True)
class Moved:
    """One metric of one arm in one window against its reference."""

    window: str
    value: float | None
    reference_value: float | None
    effect: float | None
    n: int
    reference_n: int
    over: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One arm in some parts: its histograms and its figures."""

    table: pl.DataFrame
    readings: Readings


@dataclass(frozen=True, slots=True)
class Compared:
    """One arm's window, what it is held beside, and what that is in words."""

    comparison: Comparison
    current: Side
    reference: Side
    label: str
    beside: bool
    """Whether the reference is another arm's same window."""


def area_of(name: str) -> Area:
    """Return the row of the triage matrix that a metric belongs to."""
    if name in (ITEMS_BOUGHT, "unseen_share", "top_gain", "coded_share"):
        return "data"
    if name in _FEATURES:
        return "features"
    if name.startswith(("served/", "clicked/", "served_code/")):
        return "sid"
    return "outcome" if name in _OF_LABELS else "decoder"


Arms = Mapping[tuple[str, str], Sequence[Compared]]
"""By arm and bundle: its windows, newest first, each with what it is held beside."""


def compare_arms(tally: Tally, layout: Layout, spaces: Mapping[str, CodeSpace]) -> Arms:
    """Return every arm that answered in the report's window, compared in each of its windows.

    Args:
        spaces: catalogue by bundle id, of those that are known.
    """
    arms = tally.arms(layout.newest.current)
    hits = tally.matcher.attribution(0).hits
    return {
        own: [
            compared
            for comparison in layout.comparisons
            if (
                compared := _compared(tally, comparison, layout, spaces, hits, own, [one for one in arms if one != own])
            )
            is not None
        ]
        for own in arms
    }


def arm_findings(
    arms: Arms, thresholds: Thresholds, config: MonitoringConfig, *, watermark: int, seed: int
) -> list[Finding]:
    """Return every finding of every arm.

    Args:
        watermark: up to where outcomes have been seen.
    """
    found = []
    for (arm, bundle_id), weeks in arms.items():
        moved = [_moves(week, thresholds, config, watermark, seed=seed) for week in weeks]
        for name in sorted(set().union(*moved)):
            # Labels come late: what needs them is judged on the newest window that is final.
            series = [(week, own[name]) for week, own in zip(weeks, moved, strict=True) if name in own]
            rule = thresholds.rule(name)
            if rule is not None and series and (name in _OF_LABELS or series[0][0] is weeks[0]):
                found.append(_finding(name, arm, bundle_id, rule, series, thresholds.clear))
    return found


def purchase_findings(
    drift: ItemDrift,
    reference: Mapping[str, int],
    current: Mapping[str, int],
    thresholds: Thresholds,
    config: MonitoringConfig,
    *,
    coded: Collection[str] | None,
    window: str,
    label: str,
) -> list[Finding]:
    """Return the findings of what was bought: the recipe's rule, items unseen, uncoded, and that suddenly sell.

    Args:
        coded: items that have a semantic ID in the bundle that serves; None where no bundle is known.
    """
    seen = drift.statistics
    text = "; ".join(drift.reasons) or "under every limit"
    found = [
        Finding(
            name=ITEMS_BOUGHT, area="data", value=None, reference_value=None, unit="PSI", level=drift.level,
            effect=None if seen is None else seen.psi, reference_n=drift.reference_events, min_n=config.min_events,
            threshold=config.warn_psi, alarm_threshold=config.alarm_psi, sentence=f"items bought: {text}",
            windows_over=int(drift.level in ("warn", "alarm")), arm=ALL_ARMS, window=window, reference=label,
            n=drift.events,
        )
    ]  # fmt: skip
    if seen is None:
        return found
    values = {"unseen_share": (seen.unseen_share, 0.0), "top_gain": (top_gain(reference, current)[0], 0.0)}
    if coded is not None:
        values["coded_share"] = coded_share(current, coded), coded_share(reference, coded)
    for name, (now, before) in values.items():
        rule = thresholds.rule(name)
        if rule is not None:
            size = effect_of(rule.unit, now, before)
            moved = _over(Moved(window, now, before, size, drift.events, drift.reference_events, over=False), rule)
            found.append(_judged(name, ALL_ARMS, None, rule, [moved], label, thresholds.clear))
    return found


def coded_share(purchases: Mapping[str, int], coded: Collection[str]) -> float:
    """Return the share of purchases, by item, whose item has a semantic ID: what a bundle can recommend at all."""
    known = coded if isinstance(coded, frozenset) else frozenset(coded)
    return sum(count for item, count in purchases.items() if item in known) / max(sum(purchases.values()), 1)


def top_gain(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[float, list[str]]:
    """Return the share of purchases that the ten items gained whose share grew most, of those seen before, and them."""
    keys, before, now = align(reference, current)
    gain = np.where(before > 0, now / max(now.sum(), 1) - before / max(before.sum(), 1), 0.0)
    top = np.argsort(-gain, kind="stable")[:TOP_ITEMS]
    return float(np.maximum(gain[top], 0).sum()), [keys[index] for index in top if gain[index] > 0]


def _compared(
    tally: Tally,
    comparison: Comparison,
    layout: Layout,
    spaces: Mapping[str, CodeSpace],
    hits: pl.DataFrame,
    own: tuple[str, str],
    others: Sequence[tuple[str, str]],
) -> Compared | None:
    if not tally.requests(comparison.current, own[0]):
        return None

    def side(parts: Sequence[int], whose: tuple[str, str], size: int | None = None) -> Side:
        arm, bundle_id = whose
        spans = [layout.parts[part] for part in parts]
        inside = pl.any_horizontal(
            pl.lit(False), *(pl.col("exposed").is_between(span.first, span.after, closed="left") for span in spans)
        )
        taken = readings.taken_items(hits.filter(inside), arm, bundle_id)
        space = spaces.get(bundle_id)
        found = readings.arm_readings(tally, parts, arm, bundle_id, space, taken, places=size)
        return Side(tally.table(parts, bundle_id, arm), found)

    reference, label, beside = (comparison.reference, own), layout.reference_label, False
    present = [other for other in others if tally.requests(comparison.current, other[0])]
    if present and _parts_of(tally, comparison, own[0]) < _parts_of(tally, comparison, None):
        # A younger arm may have been broken all its life: its own past would vouch for it.
        busiest = max(present, key=lambda other: tally.requests(comparison.current, other[0]))
        reference, label, beside = (comparison.current, busiest), f"arm {busiest[0]} in the same window", True
    elif not tally.requests(comparison.reference, own[0]):
        return None
    places = min(tally.places(comparison.current, own), tally.places(*reference))
    return Compared(
        comparison, side(comparison.current, own, places), side(*reference, places), label, beside
    )  # fmt: skip


def _parts_of(tally: Tally, comparison: Comparison, arm: str | None) -> int:
    """Return in how many parts of a window's reference an arm answered, or anyone."""
    return sum(tally.requests([part], arm) > 0 for part in comparison.reference)


def _moves(
    week: Compared, thresholds: Thresholds, config: MonitoringConfig, watermark: int, *, seed: int
) -> dict[str, Moved]:
    """Return every metric of one window that both sides have, by name."""
    return {
        name: moved
        for name, moved in (*_distances(week, config, seed=seed), *_changes(week, thresholds))
        if (rule := thresholds.rule(name)) is not None
        and (not week.beside or name.startswith(_BESIDE))
        and (name not in _OF_LABELS or labels.is_final(week.comparison.window, watermark))
        for moved in (_over(moved, rule),)
    }


def _distances(week: Compared, config: MonitoringConfig, *, seed: int) -> Iterator[tuple[str, Moved]]:
    window = str(week.comparison.window)
    for measure in measures.measure_week(week.reference.table, week.current.table, config, seed=seed):
        n = measures.independent_rows(measure.kind, week.current.table, measure.events)
        reference_n = measures.independent_rows(measure.kind, week.reference.table, measure.reference_events)
        yield measure.kind, Moved(window, None, None, measure.value, n, reference_n, over=False)


def _changes(week: Compared, thresholds: Thresholds) -> Iterator[tuple[str, Moved]]:
    window = str(week.comparison.window)
    for name, now in week.current.readings.items():
        rule, before = thresholds.rule(name), week.reference.readings.get(name)
        if rule is not None and before is not None and rule.unit not in ("PSI", "JS over noise floor"):
            size = effect_of(rule.unit, now.value, before.value)
            yield name, Moved(window, now.value, before.value, size, now.n, before.n, over=False)


def _over(moved: Moved, rule: Rule) -> Moved:
    over = moved.effect is not None and moved.effect >= rule.warn and min(moved.n, moved.reference_n) >= rule.min_n
    return Moved(moved.window, moved.value, moved.reference_value, moved.effect, moved.n, moved.reference_n, over)


def effect_of(unit: Unit, value: float, reference: float) -> float | None:
    """Return how far a figure moved in its rule's unit; None where it is compared with nothing."""
    if unit == "rise":
        return value - reference
    if reference <= 0:
        return None
    return 1 - value / reference if unit == "drop" else value / reference - 1


def _finding(
    name: str, arm: str, bundle_id: str, rule: Rule, series: Sequence[tuple[Compared, Moved]], clear: float
) -> Finding:
    found = _judged(name, arm, bundle_id, rule, [moved for _, moved in series], series[0][0].label, clear)
    run = [week.comparison.window.start for week, moved in series]
    length = next((number for number, (_, moved) in enumerate(series) if not moved.over), len(series))
    return found.model_copy(update={"since": run[length - 1] if length else None})


def _judged(
    name: str, arm: str, bundle_id: str | None, rule: Rule, moved: Sequence[Moved], label: str, clear: float
) -> Finding:
    newest = moved[0]
    over = sum(one.over for one in moved[: rule.of])
    level = _level(rule, moved, clear)
    return Finding(
        name=name, area=area_of(name), arm=arm, bundle_id=bundle_id, window=newest.window, reference=label,
        value=newest.value, reference_value=newest.reference_value, effect=newest.effect, unit=rule.unit, n=newest.n,
        reference_n=newest.reference_n, min_n=rule.min_n, threshold=rule.warn, alarm_threshold=rule.alarm,
        windows_over=over, windows_needed=rule.needed, windows_of=rule.of, level=level,
        sentence=_sentence(name, arm, rule, newest, over, label),
    )  # fmt: skip


def _level(rule: Rule, moved: Sequence[Moved], clear: float) -> Level:
    newest = moved[0]
    if newest.effect is None or min(newest.n, newest.reference_n) < rule.min_n:
        return "insufficient"
    if newest.over and _raised(rule, moved):
        return "alarm" if rule.alarm is not None and newest.effect >= rule.alarm else "warn"
    # What warned a window ago and is still close to its limit has not recovered; one notice, not two.
    held = len(moved) > 1 and moved[1].over and _raised(rule, moved[1:])
    return "warn" if held and newest.effect >= clear * rule.warn else "ok"


def _raised(rule: Rule, moved: Sequence[Moved]) -> bool:
    return sum(one.over for one in moved[: rule.of]) >= rule.needed


def _sentence(name: str, arm: str, rule: Rule, moved: Moved, over: int, label: str) -> str:
    whose = "" if arm == ALL_ARMS else f", arm {arm}"
    values = (
        ""
        if moved.value is None or moved.reference_value is None
        else f" {moved.reference_value:.3g} → {moved.value:.3g}"
    )
    size = "nothing to compare" if moved.effect is None else f"{rule.unit} {moved.effect:.3g} (limit {rule.warn:g})"
    weeks = f", {over} of the last {rule.of} windows over" if rule.of > 1 else ""
    return f"{name}{whose}:{values} {size}, n {moved.n:,}, against {label}{weeks}"
