"""The drift report as Evidently metrics over two tables of counts, and one run a week in its workspace.

Every metric reads the (kind, key, count) rows of `aggregate`; thresholds are attached as Evidently tests. Its own
drift of categories is not used: that is a Jensen-Shannon distance with a fixed threshold of 0.1, and two equal
samples of 5,000 draws from 256 codes already lie beyond it.
"""

import os
from datetime import datetime, time
from pathlib import Path
from typing import Any

import evidently
import polars as pl
from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricOrContainer
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context, Snapshot
from evidently.legacy.renderers.html_widgets import CounterData, counter, plotly_data
from evidently.tests import lt
from evidently.ui.workspace import Project, Workspace

from monitoring import aggregate, arm_metrics, codebook_drift, dashboard, item_drift, measures, search_statistics
from monitoring.report import DriftReport
from sidrec import files
from sidrec.recipe import MonitoringConfig

VERDICT = "verdict"
HIT_RATE = "hit_rate"
REQUESTS = "requests"
SEVERITY = {"insufficient": -1, "ok": 0, "warn": 1, "alarm": 2}
_PER_MILLION = 1_000_000
_UNSEEN = "unseen"
_LIBRARY = Path(evidently.__file__).parent / "nbextension" / "static" / "index.js"


class DriftVerdict(SingleValueMetric):  # type: ignore[misc]
    """-1 insufficient, 0 ok, 1 warn, 2 alarm; the sentence is its text."""


class _DriftVerdict(SingleValueCalculation[DriftVerdict]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        [(sentence, severity)] = _counts(current_data, VERDICT).items()
        value = self.result(severity)
        value.widget = [counter(title="Verdict", counters=[CounterData(sentence, sentence.partition(":")[0])])]
        return value

    def display_name(self) -> str:
        return "Verdict (-1 insufficient, 0 ok, 1 warn, 2 alarm)"


class RowTotal(SingleValueMetric):  # type: ignore[misc]
    """How many rows of one kind the window has."""

    kind: str


class _RowTotal(SingleValueCalculation[RowTotal]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        return self.result(sum(_counts(current_data, self.metric.kind).values()))

    def display_name(self) -> str:
        return f"Number of {self.metric.kind}"


class ItemDriftStatistic(SingleValueMetric):  # type: ignore[misc]
    """`psi`, `js`, `ratio` or `unseen_share` of the items bought, by `item_drift.statistics`."""

    statistic: str
    seed: int


class _ItemDriftStatistic(SingleValueCalculation[ItemDriftStatistic]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        before, now = (_counts(data, aggregate.BOUGHT) for data in (reference_data, current_data))
        statistics = item_drift.statistics(before, now, seed=self.metric.seed)
        value = self.result(getattr(statistics, self.metric.statistic))
        if self.metric.statistic == "psi":
            value.widget = [_number(self.display_name(), value.value), _bin_bars(before, now)]
        return value

    def display_name(self) -> str:
        names = {"psi": "PSI", "js": "JS divergence", "ratio": "JS over noise floor", "unseen_share": "unseen share"}
        return f"Items bought: {names[self.metric.statistic]}"


class FeatureDrift(SingleValueMetric):  # type: ignore[misc]
    """Drift of one request feature, of the items served, or of the codes served, by `measures`."""

    kind: str
    statistic: str
    seed: int


class _FeatureDrift(SingleValueCalculation[FeatureDrift]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        before, now = (_counts(data, self.metric.kind) for data in (reference_data, current_data))
        scale = measures.scale_of(self.metric.kind)
        if scale is not None:
            return self.result(measures.feature_psi(before, now, scale))
        return self.result(measures.noise_ratio(before, now, seed=self.metric.seed))

    def display_name(self) -> str:
        return f"{self.metric.kind}: {self.metric.statistic}"


class CodeUsage(SingleValueMetric):  # type: ignore[misc]
    """`utilisation`, `entropy`, `perplexity` or `largest_share` of one level's codes in one kind of traffic."""

    traffic: str
    level: int
    size: int
    statistic: str


class _CodeUsage(SingleValueCalculation[CodeUsage]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        kind = aggregate.usage_kind(self.metric.traffic, self.metric.level)
        counts = list(_counts(current_data, kind).values())
        usage = codebook_drift.usage(self.metric.level, self.metric.traffic, counts, self.metric.size)
        return self.result(getattr(usage, self.metric.statistic))

    def display_name(self) -> str:
        return f"Level {self.metric.level}, {self.metric.traffic}: {self.metric.statistic}"


class SearchNumber(SingleValueMetric):  # type: ignore[misc]
    """`mean` or `entropy` of what searches say of themselves under one name."""

    name: str
    statistic: str


class _SearchNumber(SingleValueCalculation[SearchNumber]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        counts = _counts(current_data, f"{aggregate.SEARCH}{self.metric.name}")
        seen = search_statistics.statistic(self.metric.name, counts)
        return self.result(getattr(seen, self.metric.statistic))

    def display_name(self) -> str:
        return f"Search, {self.metric.name}: {self.metric.statistic}"


class HitRate(SingleValueMetric):  # type: ignore[misc]
    """Share of the week's requests of whose items at least one was bought within 7 days, so far."""


class _HitRate(SingleValueCalculation[HitRate]):  # type: ignore[misc]
    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        return self.result(sum(_counts(current_data, HIT_RATE).values()) / _PER_MILLION)

    def display_name(self) -> str:
        return "Requests with a hit"


def run(report: DriftReport, config: MonitoringConfig, *, seed: int, recipe: str) -> Snapshot:
    """Return Evidently's run of a report: verdict, item drift, inputs, predictions, codes, each arm's figures.

    Args:
        recipe: name of the recipe that judged it.
    """
    return _run(report, _metrics(report, config, seed), recipe=recipe)


def _run(report: DriftReport, metrics: list[MetricOrContainer], *, recipe: str) -> Snapshot:
    definition = DataDefinition(categorical_columns=["kind", "key"], numerical_columns=["count"])
    extra = pl.DataFrame(
        [
            (VERDICT, report.sentence, SEVERITY[report.level]),
            (REQUESTS, "", report.attribution.requests),
            (HIT_RATE, "", round(report.attribution.hit_rate * _PER_MILLION)),
        ],
        schema=aggregate.SCHEMA,
        orient="row",
    )
    current = pl.concat([report.current_counts, extra, arm_metrics.rows(report.readings, report.verdict.findings)])
    reference = pl.concat([report.reference_counts, arm_metrics.rows(report.reference_readings)])
    current_data, reference_data = (
        Dataset.from_pandas(table.to_pandas(), data_definition=definition)
        for table in (current, reference if reference.height else extra)
    )
    return Report(metrics).run(
        current_data,
        reference_data,
        timestamp=datetime.combine(report.window.start, time()),
        name=str(report.window),
        metadata={"window": str(report.window), "bundle_id": report.bundle_id or "", "level": report.level}
        | dashboard.metadata(recipe, report.verdict.bundle_ids),
        tags=[report.level, report.purchase_reference.name],
    )


def save_page(snapshot: Snapshot, path: Path, library: Path) -> None:
    """Write the run's page; the code that draws it, equal for every page, is written once, to `library`.

    Evidently's own page holds 3.5 MB of that code.
    """
    code = _LIBRARY.read_text(encoding="utf-8")
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        files.write_text_atomic(library, code)
    link = f'<script src="{os.path.relpath(library, path.parent)}"></script>'
    page = snapshot.get_html_str(as_iframe=False).replace(f"<script>{code}</script>", link)
    files.write_text_atomic(path, page)


def add_run(workspace: Path, snapshot: Snapshot, report: DriftReport, *, recipe: str) -> str:
    """Return the id of the run over everything; a week has one run for each reference, the newest.

    Each bundle that answered has a run in a project of its own too: the verdict, and figures of the arms that it was.
    """
    store = Workspace.create(str(workspace))
    levels = sorted({usage.level for usage in report.usage})
    figures = {arm: tuple(own) for arm, own in report.readings.items()}
    project = dashboard.open_project(
        store, levels, [seen.name for seen in report.searches], figures=figures, recipe=recipe
    )
    served = report.verdict.bundle_ids
    for bundle_id in sorted(set(served.values())):
        own = {arm: report.readings.get(arm, {}) for arm, bundle in served.items() if bundle == bundle_id}
        of_bundle = _run(report, [DriftVerdict(), *arm_metrics.figures(own)], recipe=recipe)
        shown = {arm: tuple(readings) for arm, readings in own.items()}
        _replace_run(store, dashboard.open_bundle_project(store, bundle_id, shown), of_bundle, report)
    return _replace_run(store, project, snapshot, report)


def _replace_run(store: Workspace, project: Project, snapshot: Snapshot, report: DriftReport) -> str:
    for run_id in store.list_runs(project.id):
        old = store.get_run(project.id, run_id)
        if old is not None and old.name == snapshot.get_name() and report.purchase_reference.name in old.tags:
            store.delete_run(project.id, run_id)
    return str(store.add_run(project.id, snapshot, include_data=False).id)


def _metrics(report: DriftReport, config: MonitoringConfig, seed: int) -> list[MetricOrContainer]:
    metrics: list[SingleValueMetric] = [DriftVerdict(), HitRate()]
    metrics += [RowTotal(kind=kind) for kind in (REQUESTS, aggregate.BOUGHT)]
    if report.item_drift.statistics is not None:
        limits = {"psi": config.warn_psi, "ratio": config.warn_ratio}
        metrics += [
            ItemDriftStatistic(
                statistic=statistic,
                seed=seed,
                tests=[lt(limits[statistic])] if statistic in limits else [],
            )
            for statistic in ("psi", "ratio", "js", "unseen_share")
        ]
    metrics += [
        FeatureDrift(kind=measure.kind, statistic=measure.statistic, seed=seed, tests=[lt(measure.threshold)])
        for measure in report.measures
    ]
    metrics += [
        CodeUsage(traffic=usage.traffic, level=usage.level, size=usage.size, statistic=statistic, tests=[])
        for usage in report.usage
        for statistic in ("utilisation", "entropy", "perplexity", "largest_share")
    ]
    metrics += [
        SearchNumber(name=seen.name, statistic=statistic)
        for seen in report.searches
        for statistic in ("mean", "entropy")
    ]
    return [*metrics, *arm_metrics.metrics(report.readings, report.verdict.findings)]


def _counts(data: Dataset | None, kind: str) -> dict[str, int]:
    assert data is not None
    table = data.as_dataframe()
    rows = table[table["kind"] == kind]
    return {str(key): int(count) for key, count in zip(rows["key"], rows["count"], strict=True)}


def _number(title: str, value: float) -> Any:
    return counter(title=title, counters=[CounterData("", f"{value:.3f}")])


def _bin_bars(before: dict[str, int], now: dict[str, int]) -> Any:
    """Return the bars behind the PSI: the shares of twenty popularity bins and of unseen items."""
    _, reference, current = item_drift.align(before, now)
    bins, number = item_drift.popularity_bins(reference), item_drift.NUM_BINS
    names = [*(str(bin_ + 1) for bin_ in range(number)), _UNSEEN]
    bars = [
        {"type": "bar", "name": name, "x": names, "y": item_drift.bin_shares(counts, bins, number + 1).tolist()}
        for name, counts in (("reference", reference), ("current", current))
    ]
    layout = {"xaxis": {"title": "popularity bin of the reference, most popular first", "type": "category"}}
    return plotly_data(title="Purchases by popularity bin", data=bars, layout=layout | {"barmode": "group"})
