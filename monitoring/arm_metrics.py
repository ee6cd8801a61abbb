"""Figures of each arm as Evidently metrics, beside those of its reference, and two presets of what moved.

They read rows of kind `reading/<name>` (a figure in millionths) and `effect/<name>` (how far it moved), key = arm, of
the two tables that a report hands to Evidently. With a reference a metric returns both results.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl
from evidently import Dataset
from evidently.core.container import MetricContainer, MetricOrContainer
from evidently.core.metric_types import SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context
from evidently.tests import lt

from monitoring import aggregate
from monitoring.findings import Area, Finding
from monitoring.readings import Readings

READING = "reading/"
EFFECT = "effect/"
MILLIONTHS = 1_000_000

_INPUTS: tuple[Area, ...] = ("data", "features")

Results: TypeAlias = Any
"""A result, or with a reference the pair of both."""


def rows(readings: Mapping[str, Readings], findings: Iterable[Finding] = ()) -> pl.DataFrame:
    """Return figures by arm, and effects, as rows of counts."""
    figures = [
        (f"{READING}{name}", arm, round(reading.value * MILLIONTHS))
        for arm, own in readings.items()
        for name, reading in own.items()
    ]
    effects = [
        (f"{EFFECT}{finding.name}", finding.arm, round(finding.effect * MILLIONTHS))
        for finding in findings
        if finding.effect is not None
    ]
    return pl.DataFrame([*figures, *effects], schema=aggregate.SCHEMA, orient="row")


class _OfArm:
    """What every calculation here does: look up one row of each table."""

    def figure(self, kind: str, context: Context, current: Dataset, reference: Dataset | None) -> Results:
        arm = self.metric.arm  # type: ignore[attr-defined]
        now, before = (None if data is None else _value(data, kind, arm) for data in (current, reference))
        result = self.result(0.0 if now is None else now)  # type: ignore[attr-defined]
        return result if before is None else (result, self.result(before))  # type: ignore[attr-defined]


class CodeHealth(SingleValueMetric):  # type: ignore[misc]
    """`utilisation`, `perplexity`, `normalised_entropy`, `dead_codes`, `largest_share` or `collision_share` of a level.

    Of the `catalogue`, of what the arm `served`, or of what was `clicked`; the largest share of a slot is the load of
    its busiest expert.
    """

    arm: str
    traffic: str
    level: int
    statistic: str


class _CodeHealth(SingleValueCalculation[CodeHealth], _OfArm):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Results:
        metric = self.metric
        name = f"{READING}{metric.traffic}/{metric.level}/{metric.statistic}"
        return self.figure(name, context, current_data, reference_data)

    def display_name(self) -> str:
        return f"{self.metric.arm}, level {self.metric.level}, {self.metric.traffic}: {self.metric.statistic}"


class SlotOverlap(SingleValueMetric):  # type: ignore[misc]
    """Normalised mutual information of the two slots that share most: 1 where one says what the other says."""

    arm: str
    traffic: str


class _SlotOverlap(SingleValueCalculation[SlotOverlap], _OfArm):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Results:
        name = f"{READING}{self.metric.traffic}/slot_overlap"
        return self.figure(name, context, current_data, reference_data)

    def display_name(self) -> str:
        return f"{self.metric.arm}, {self.metric.traffic}: largest mutual information of two slots"


class RankingQuality(SingleValueMetric):  # type: ignore[misc]
    """`recall@K` or `ndcg@K`, mean over the requests whose seven days of labels are in."""

    arm: str
    name: str


class AnswerFigure(SingleValueMetric):  # type: ignore[misc]
    """A share or mean over an arm's answers.

    Cold, degraded, short lists, null histories, feature age, broken ties, coverage, popularity bias, or what searches
    say of themselves (`search/<name>/mean` and `entropy`).
    """

    arm: str
    name: str


class _RankingQuality(SingleValueCalculation[RankingQuality], _OfArm):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Results:
        return self.figure(f"{READING}{self.metric.name}", context, current_data, reference_data)

    def display_name(self) -> str:
        return f"{self.metric.arm}: {self.metric.name}"


class _AnswerFigure(SingleValueCalculation[AnswerFigure], _OfArm):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Results:
        return self.figure(f"{READING}{self.metric.name}", context, current_data, reference_data)

    def display_name(self) -> str:
        return f"{self.metric.arm}: {self.metric.name}"


class ArmDrift(SingleValueMetric):  # type: ignore[misc]
    """How far one metric of an arm moved from its reference, in the unit of its rule."""

    arm: str
    name: str


class _ArmDrift(SingleValueCalculation[ArmDrift], _OfArm):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Results:
        # An effect is of both tables already; the reference has none of its own.
        return self.figure(f"{EFFECT}{self.metric.name}", context, current_data, None)

    def display_name(self) -> str:
        return f"Drift of {self.metric.name}, {self.metric.arm}"


class _DriftPreset(MetricContainer):  # type: ignore[misc]
    limits: dict[str, float]
    """Threshold by key of finding, `<name>@<arm>`."""

    def generate_metrics(self, context: Context) -> Sequence[MetricOrContainer]:
        """Return one metric a key, tested against its threshold."""
        pairs = [(*key.rsplit("@", 1), limit) for key, limit in self.limits.items()]
        return [ArmDrift(name=name, arm=arm, tests=[lt(limit)]) for name, arm, limit in pairs]


class DataDriftPreset(_DriftPreset):
    """Drift of purchases and of what requests bring along."""


class PredictionDriftPreset(_DriftPreset):
    """Drift of codes, of answers and of how well they foretold purchases."""


def metrics(readings: Mapping[str, Readings], findings: Iterable[Finding]) -> list[MetricOrContainer]:
    """Return the metrics of every figure, and both presets of every effect."""
    inputs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for finding in findings:
        if finding.effect is not None and finding.threshold is not None:
            own = inputs if finding.area in _INPUTS else outputs
            own[finding.key] = finding.threshold
    return [DataDriftPreset(limits=inputs), PredictionDriftPreset(limits=outputs), *figures(readings)]


def figures(readings: Mapping[str, Readings]) -> list[MetricOrContainer]:
    """Return the metrics of every figure of these arms."""
    return [metric for arm, own in sorted(readings.items()) for metric in _figures(arm, own)]


def _figures(arm: str, readings: Readings) -> Iterator[SingleValueMetric]:
    for name in readings:
        traffic, _, rest = name.partition("/")
        if traffic in ("catalogue", "served", "clicked"):
            level, _, statistic = rest.partition("/")
            if statistic:
                yield CodeHealth(arm=arm, traffic=traffic, level=int(level), statistic=statistic, tests=[])
            else:
                yield SlotOverlap(arm=arm, traffic=traffic, tests=[])
        elif name.startswith(("recall@", "ndcg@")):
            yield RankingQuality(arm=arm, name=name, tests=[])
        else:
            yield AnswerFigure(arm=arm, name=name, tests=[])


def _value(data: Dataset, kind: str, arm: str) -> float | None:
    table = data.as_dataframe()
    found = table[(table["kind"] == kind) & (table["key"] == arm)]["count"]
    return None if found.empty else float(found.iloc[0]) / MILLIONTHS
