"""One week's drift report: item drift, inputs, predictions and code usage, and one line that says what to think.

Everything is counted first (`aggregate`), judged (`item_drift`, `measures`), then drawn by Evidently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from monitoring import aggregate, arms, codebook_drift, item_drift, measures, references, search_statistics, windows
from monitoring.codebook_drift import TRAFFICS, LevelUsage
from monitoring.item_drift import ItemDrift, Level
from monitoring.measures import Measure
from monitoring.references import Reference
from monitoring.search_statistics import SearchStatistic
from monitoring.windows import Attribution, Window
from sidrec import files, home, outcome
from sidrec.recipe import MonitoringConfig, Recipe

SCHEMA_VERSION = 1
VERDICT = "verdict.json"
HTML = "report.html"
JSON = "report.json"

EXIT_CODES: Mapping[Level, int] = {"ok": 0, "warn": 0, "alarm": 1, "insufficient": 3}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a report's rows are; `bundle` is the folder of the bundle whose codes are counted."""

    exposures: Path
    outcomes: Path
    baskets: Path
    bundle: Path | None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One week against its references, judged."""

    window: Window
    bundle_id: str | None
    level: Level
    sentence: str
    item_drift: ItemDrift
    measures: tuple[Measure, ...]
    usage: tuple[LevelUsage, ...]
    searches: tuple[SearchStatistic, ...]
    arms: list[dict[str, Any]]
    attribution: Attribution
    purchase_reference: Reference
    request_reference: Reference
    reference_counts: pl.DataFrame
    current_counts: pl.DataFrame
    other_bundles: int

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict and every number behind it as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "level": self.level,
            "sentence": self.sentence,
            "window": {"first": str(self.window.start), "last": str(self.window)[-10:]},
            "bundle_id": self.bundle_id,
            "references": {"purchases": self.purchase_reference.label, "requests": self.request_reference.label},
            "n": {
                "requests": self.attribution.requests,
                "compared_requests": aggregate.total_of(self.current_counts, aggregate.COMPARED),
                "reference_requests": aggregate.total_of(self.reference_counts, aggregate.COMPARED),
                "purchases": self.item_drift.events,
                "reference_purchases": self.item_drift.reference_events,
                "requests_of_other_bundles": self.other_bundles,
            },
            "item_drift": self.item_drift.as_dict(),
            "measures": [measure.as_dict() for measure in self.measures],
            "codebook": [usage.as_dict() for usage in self.usage],
            "search": [seen.as_dict() for seen in self.searches],
            "outcomes": self.attribution.as_dict(),
            "arms": self.arms,
        }


def build(sources: Sources, recipe: Recipe, *, week: date | None = None, reference: str = "fit") -> DriftReport | None:
    """Return the report of the week that holds `week`, default the newest; None without any row.

    Args:
        reference: what purchases are compared with, see `references.purchase_reference`.
    """
    config = recipe.monitoring
    logged = windows.scan_exposures(sources.exposures)
    outcomes = outcome.read(sources.outcomes).lazy()
    window = windows.newest_week(logged, outcomes) if week is None else windows.week_of(week)
    if window is None:
        return None
    exposures = windows.distinct_requests(references.weeks_needed(window).rows(logged))
    catalogue, bundle_id = _catalogue(sources.bundle)
    purchases = windows.outcome_purchases(window.rows(outcomes))
    before = references.purchase_reference(pl.scan_parquet(sources.baskets), reference, recipe.gate_start)
    earlier, compared = references.request_reference(exposures, window)
    current_counts, reference_counts = (
        pl.concat([aggregate.request_counts(requests, bundle_id), aggregate.purchase_counts(bought)])
        for requests, bought in ((compared, purchases), (earlier.rows, before.rows))
    )
    drift = item_drift.measure(
        aggregate.counts_of(reference_counts, aggregate.BOUGHT),
        aggregate.counts_of(current_counts, aggregate.BOUGHT),
        config,
        seed=recipe.seed,
    )
    newest = measures.measure_week(reference_counts, current_counts, config, seed=recipe.seed)
    older = [
        _measured(exposures, past, bundle_id, config, recipe.seed)
        for past in (window.previous(1), Window(window.previous(2).start, window.previous(1).start))
    ]
    judged = tuple(measures.over_weeks([newest, *older]))
    level = _overall(drift, judged)
    served = window.rows(exposures)
    usage_counts = (
        aggregate.SCHEMA.to_frame()
        if catalogue is None or bundle_id is None
        else aggregate.usage_counts(served, purchases, catalogue, bundle_id)
    )
    attribution = windows.attribute_window(exposures, outcomes, window)
    own = served.filter(pl.col("bundle_id") == pl.lit(bundle_id, dtype=pl.String)).select(pl.len()).collect().item()
    return DriftReport(
        window=window,
        bundle_id=bundle_id,
        level=level,
        sentence=_sentence(level, window, before, drift, judged),
        item_drift=drift,
        measures=judged,
        usage=tuple(_usage(usage_counts, catalogue, recipe)),
        searches=tuple(search_statistics.statistics(current_counts)),
        arms=arms.arm_rows(served),
        attribution=attribution,
        purchase_reference=before,
        request_reference=earlier,
        reference_counts=reference_counts,
        current_counts=pl.concat([current_counts, usage_counts]),
        other_bundles=attribution.requests - own,
    )


def save(report: DriftReport, recipe: Recipe, folder: Path, workspace: Path) -> dict[str, Any]:
    """Return the verdict after writing it, the HTML page and the JSON into `folder` and the run into `workspace`."""
    from monitoring import evidently_report

    snapshot = evidently_report.run(report, recipe.monitoring, seed=recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    snapshot.save_html(str(folder / HTML))
    snapshot.save_json(str(folder / JSON))
    run_id = evidently_report.add_run(workspace, snapshot, report)
    verdict = report.as_dict() | {"run_id": run_id}
    files.write_json_atomic(folder / VERDICT, verdict)
    return verdict


def no_data(sources: Sources, folder: Path) -> dict[str, Any]:
    """Return, and write into `folder`, the verdict over nothing."""
    sentence = f"insufficient: no exposures in {sources.exposures} and no outcomes in {sources.outcomes}"
    verdict = {"schema_version": SCHEMA_VERSION, "level": "insufficient", "sentence": sentence, "n": {}}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json_atomic(folder / VERDICT, verdict)
    return verdict


def _catalogue(bundle: Path | None) -> tuple[pl.DataFrame | None, str | None]:
    if bundle is None:
        return None, None
    return pl.read_parquet(bundle / "catalogue.parquet"), str(files.read_json(bundle / "manifest.json")["bundle_id"])


def _measured(
    exposures: pl.LazyFrame,
    window: Window,
    bundle_id: str | None,
    config: MonitoringConfig,
    seed: int,
) -> list[Measure]:
    """Return an earlier week's measures; none where it has no requests before it."""
    earlier, requests = references.request_reference(exposures, window)
    if earlier.name != "earlier":
        return []
    before, now = (aggregate.request_counts(rows, bundle_id) for rows in (earlier.rows, requests))
    return measures.measure_week(before, now, config, seed=seed)


def _usage(counts: pl.DataFrame, catalogue: pl.DataFrame | None, recipe: Recipe) -> list[LevelUsage]:
    if catalogue is None:
        return []
    codebook = recipe.section("codebook") or {}
    sizes = codebook_drift.level_sizes(catalogue, codebook.get("codebook_size"), codebook.get("num_levels"))
    return [
        codebook_drift.usage(
            level, traffic, list(aggregate.counts_of(counts, aggregate.usage_kind(traffic, level)).values()), size
        )
        for level, size in sizes.items()
        for traffic in TRAFFICS
    ]


def _overall(drift: ItemDrift, judged: tuple[Measure, ...]) -> Level:
    if drift.level == "alarm":
        return "alarm"
    if any(measure.warns for measure in judged):
        return "warn"
    return drift.level


def _sentence(level: Level, window: Window, before: Reference, drift: ItemDrift, judged: tuple[Measure, ...]) -> str:
    others = [
        f"{measure.kind} {measure.statistic} {measure.value:.2f} in {measure.weeks_crossed} of "
        f"{measure.weeks_measured} weeks"
        for measure in judged
        if measure.warns
    ]
    seen = drift.statistics
    numbers = (
        f": PSI {seen.psi:.3f}, JS {seen.js:.3f} = {seen.ratio:.2f} times its noise floor, "
        f"{seen.unseen_share:.1%} on items unseen there"
        if seen
        else ""
    )
    why = "; ".join([*drift.reasons, *others])
    return f"{level}: {drift.events:,} purchases of {window} against {before.label}{numbers}" + (
        f" ({why})" if why else ""
    )


def workspace_dir() -> Path:
    """Return the folder of the Evidently workspace."""
    return home.monitoring_dir() / "workspace"


def report_dir(report: DriftReport) -> Path:
    """Return the folder of one week's page and verdict against one reference."""
    return home.monitoring_dir() / "reports" / f"{report.window.start}-{report.purchase_reference.name}"
