"""Every measure beside item drift: inputs, predictions and served codes of one week against the weeks before it.

A measure that crosses its threshold in 2 of the last 3 weeks is a warning; one week alone never is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from monitoring import aggregate, item_drift
from monitoring.item_drift import WINDOWS_NEEDED, WINDOWS_OF
from monitoring.thresholds import Thresholds
from sidrec.recipe import MonitoringConfig

Panel = Literal["input", "prediction", "codebook"]
Scale = Literal["category", "value"]

NUM_VALUE_BINS = 10

FEATURE_SCALES: dict[str, tuple[Panel, Scale]] = {
    "history_source": ("input", "category"),
    "history_length": ("input", "value"),
    "known_share": ("input", "value"),
    "known_items": ("input", "value"),
    "feature_age_days": ("input", "value"),
    "surface": ("input", "category"),
    "source": ("prediction", "category"),
    "top_score": ("prediction", "value"),
}
# Of whatever number a search says of itself.
SEARCH_SCALE: tuple[Panel, Scale] = ("prediction", "value")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of one week, its threshold, and in how many of the last weeks it was over it."""

    panel: Panel
    kind: str
    statistic: Literal["PSI", "JS over noise floor"]
    value: float
    threshold: float
    events: int
    reference_events: int
    crossed: bool
    weeks_crossed: int = 0
    weeks_measured: int = 0

    @property
    def warns(self) -> bool:
        """Whether enough of the last weeks were over the threshold, this one among them."""
        return self.crossed and self.weeks_crossed >= WINDOWS_NEEDED

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self) | {"warns": self.warns}


def feature_psi(reference: dict[str, int], current: dict[str, int], scale: Scale) -> float:
    """Return the stability index of a request feature: one bin a category, or ten equal-mass bins of values."""
    keys, before, now = item_drift.align(reference, current)
    if scale == "category":
        return item_drift.psi(before, now, np.arange(len(keys)), len(keys))
    order = np.argsort([float(key) for key in keys], kind="stable")
    before, now = before[order], now[order]
    bins = item_drift.value_bins(before, NUM_VALUE_BINS)
    return item_drift.psi(before, now, bins, NUM_VALUE_BINS + 2)


def noise_ratio(reference: dict[str, int], current: dict[str, int], *, seed: int) -> float:
    """Return the divergence of two samples over what two samples of one distribution would show."""
    _, before, now = item_drift.align(reference, current)
    return item_drift.over_floor(
        item_drift.js_divergence(before, now), item_drift.two_sample_floor(before, now, seed=seed)
    )


def scale_of(kind: str) -> Scale | None:
    """Return how a kind's values are binned for a PSI; None for items and codes, which are not."""
    if kind.startswith(aggregate.SEARCH):
        return SEARCH_SCALE[1]
    return FEATURE_SCALES[kind][1] if kind in FEATURE_SCALES else None


def measure_week(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    config: MonitoringConfig,
    *,
    seed: int,
    thresholds: Thresholds | None = None,
) -> list[Measure]:
    """Return every measure that has enough requests on both sides, judged by the thresholds or the recipe's limits."""

    def limit(kind: str, otherwise: float) -> float:
        rule = None if thresholds is None else thresholds.rule(kind)
        return otherwise if rule is None else rule.warn

    requests = aggregate.total_of(current, aggregate.COMPARED), aggregate.total_of(reference, aggregate.COMPARED)
    if min(requests) < config.min_requests:
        return []
    measures = []
    both = set(reference["kind"].unique()) & set(current["kind"].unique())
    searches = {kind: SEARCH_SCALE for kind in sorted(both) if kind.startswith(aggregate.SEARCH)}
    for kind, (panel, scale) in {**FEATURE_SCALES, **searches}.items():
        before, now = aggregate.counts_of(reference, kind), aggregate.counts_of(current, kind)
        if min(sum(before.values()), sum(now.values())) >= config.min_requests:
            value = feature_psi(before, now, scale)
            measures.append(_measure(panel, kind, "PSI", value, limit(kind, config.warn_psi), before, now))
    for panel, kind in _divergent_kinds(reference, current):
        before, now = aggregate.counts_of(reference, kind), aggregate.counts_of(current, kind)
        value = noise_ratio(before, now, seed=seed)
        measures.append(
            _measure(panel, kind, "JS over noise floor", value, limit(kind, config.warn_ratio), before, now)
        )
    return measures


def independent_rows(kind: str, table: pl.DataFrame, events: int) -> int:
    """Return how many requests are behind a measure: items and codes of one answer are one choice, not ten."""
    return events if scale_of(kind) is not None else aggregate.total_of(table, aggregate.COMPARED)


def _divergent_kinds(reference: pl.DataFrame, current: pl.DataFrame) -> list[tuple[Panel, str]]:
    both = set(reference["kind"].unique()) & set(current["kind"].unique())
    served_codes = sorted(kind for kind in both if kind.startswith(aggregate.SERVED_CODES))
    items: list[tuple[Panel, str]] = [("prediction", aggregate.SERVED)] if aggregate.SERVED in both else []
    return items + [("codebook", kind) for kind in served_codes]


def _measure(
    panel: Panel,
    kind: str,
    statistic: Literal["PSI", "JS over noise floor"],
    value: float,
    threshold: float,
    before: dict[str, int],
    now: dict[str, int],
) -> Measure:
    events, reference_events = sum(now.values()), sum(before.values())
    return Measure(panel, kind, statistic, value, threshold, events, reference_events, value >= threshold)


def over_weeks(weeks: Sequence[Sequence[Measure]]) -> list[Measure]:
    """Return the newest week's measures with how many of the weeks given, newest first, were over the threshold."""
    by_kind = [{measure.kind: measure for measure in week} for week in weeks[:WINDOWS_OF]]
    return [
        replace(
            measure,
            weeks_crossed=sum(week[kind].crossed for week in by_kind if kind in week),
            weeks_measured=sum(kind in week for week in by_kind),
        )
        for kind, measure in by_kind[0].items()
    ]
