"""One week's drift report: item drift, inputs, predictions and code usage, and one line that says what to think.

Everything is counted first (`aggregate`), judged (`item_drift`, `measures`), then drawn by Evidently.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from monitoring import (
    aggregate,
    arms,
    causes,
    codebook_drift,
    counting,
    decide,
    item_drift,
    labels,
    layout,
    measures,
    references,
    search_statistics,
    thresholds,
    windows,
)
from monitoring import findings as findings_file
from monitoring.codebook_drift import TRAFFICS, LevelUsage
from monitoring.counting import Tally
from monitoring.findings import DriftVerdict, Finding, Level, Suspect, worst
from monitoring.item_drift import ItemDrift
from monitoring.labels import Attribution
from monitoring.layout import Layout
from monitoring.measures import Measure
from monitoring.readings import CodeSpace, Readings
from monitoring.references import Reference
from monitoring.search_statistics import SearchStatistic
from monitoring.windows import Window
from sidrec import exposure, files, home, outcome
from sidrec.recipe import Recipe, load_recipe

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
    others: tuple[Path, ...] = ()
    """Folders of further bundles that answered, such as other arms'; without one, its codes are counted by no size."""


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
    readings: Mapping[str, Readings]
    """Figures by arm in the window."""
    reference_readings: Mapping[str, Readings]
    verdict: DriftVerdict

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
            "readings": {
                arm: {name: {"value": one.value, "n": one.n} for name, one in own.items()}
                for arm, own in self.readings.items()
            },
            "suspects": [suspect.model_dump(mode="json") for suspect in self.verdict.suspects],
        }


def build(sources: Sources, recipe: Recipe, *, week: date | None = None, reference: str = "fit") -> DriftReport | None:
    """Return the report of the week that holds `week`, default the newest; None without any row.

    Args:
        reference: what purchases are compared with, see `references.purchase_reference`.
    """
    config = recipe.monitoring
    logged = windows.scan_exposures(sources.exposures)
    outcomes = outcome.read(sources.outcomes).lazy()
    watermark = windows.newest_time(logged, outcomes)
    if watermark is None:
        return None
    window = windows.week_of(datetime.fromtimestamp(watermark, UTC).date() if week is None else week)
    limits = thresholds.load()
    catalogue, bundle_id = _catalogue(sources.bundle)
    known = {space.bundle_id: space for space in spaces(sources, recipe)}
    plan, counted = count(logged, outcomes, window, watermark, known)
    current, compared = plan.newest.current, plan.newest.reference
    purchases = windows.outcome_purchases(window.rows(outcomes))
    before = references.purchase_reference(pl.scan_parquet(sources.baskets), reference, recipe.gate_start)
    current_counts, reference_counts = (
        pl.concat([counted.table(parts, bundle_id), aggregate.purchase_counts(bought)])
        for parts, bought in ((current, purchases), (compared, before.rows))
    )
    bought_then, bought_now = (
        aggregate.counts_of(table, aggregate.BOUGHT) for table in (reference_counts, current_counts)
    )
    drift, *earlier_drifts = (
        item_drift.measure(bought_then, bought, config, seed=recipe.seed)
        for bought in (bought_now, *(_bought(outcomes, window.before(back)) for back in (1, 2)))
    )
    drift = item_drift.settled(drift, earlier_drifts, config)
    judged = tuple(
        measures.over_weeks(
            [
                measures.measure_week(
                    counted.table(one.reference, bundle_id),
                    counted.table(one.current, bundle_id),
                    config,
                    seed=recipe.seed,
                    thresholds=limits,
                )
                for one in plan.comparisons
            ]
        )
    )
    compared_arms = decide.compare_arms(counted, plan, known)
    found = [
        *decide.purchase_findings(
            drift,
            bought_then,
            bought_now,
            limits,
            config,
            coded=None if catalogue is None else frozenset(catalogue["item_id"]),
            window=str(window),
            label=before.label,
        ),
        *decide.arm_findings(compared_arms, limits, config, watermark=watermark, seed=recipe.seed),
    ]
    newest = {arm: weeks[0] for (arm, _), weeks in compared_arms.items() if weeks}
    findings, suspects = causes.name_causes(
        found,
        {arm: (week.current.table, week.reference.table) for arm, week in newest.items()},
        reference_items=bought_then,
        current_items=bought_now,
        gained=decide.top_gain(bought_then, bought_now)[1],
    )
    level = _overall(drift, judged, findings)
    whole = layout.whole(plan)
    served = counted.served(whole, bundle_id) if bundle_id is not None else None
    usage_counts = (
        aggregate.SCHEMA.to_frame()
        if catalogue is None or served is None
        else aggregate.usage_counts(served.lazy(), purchases, catalogue)
    )
    first, after = window.bounds
    requests = counted.requests(whole)
    attribution = counted.matcher.attribution(requests, since=first, until=after, count_from=first)
    sentence = _sentence(level, window, before, drift, judged, suspects)
    return DriftReport(
        window=window,
        bundle_id=bundle_id,
        level=level,
        sentence=sentence,
        item_drift=drift,
        measures=judged,
        usage=tuple(_usage(usage_counts, catalogue, recipe)),
        searches=tuple(search_statistics.statistics(current_counts)),
        arms=arms.counted_rows(counted, whole),
        attribution=attribution,
        purchase_reference=before,
        request_reference=Reference(plan.reference_name, plan.reference_label, exposure.SCHEMA.to_frame().lazy()),
        reference_counts=reference_counts,
        current_counts=pl.concat([current_counts, usage_counts]),
        other_bundles=requests - counted.requests(whole, bundle_id=bundle_id),
        readings={arm: week.current.readings for arm, week in newest.items()},
        reference_readings={arm: week.reference.readings for arm, week in newest.items()},
        verdict=DriftVerdict(
            level=level,
            sentence=sentence,
            window=str(window),
            first_day=window.start,
            last_day=window.end - timedelta(days=1),
            reference=before.name,
            labels_final=labels.is_final(window, watermark),
            watermark=watermark,
            bundle_ids=dict(list(compared_arms)),
            findings=findings,
            suspects=suspects,
        ),
    )


def count(
    logged: pl.LazyFrame,
    outcomes: pl.LazyFrame,
    window: Window,
    watermark: int,
    spaces: Mapping[str, CodeSpace],
) -> tuple[Layout, Tally]:
    """Return which spans of time a report of `window` compares, and everything that it counts of them."""
    needed = layout.weeks_needed(window)
    read = Window(needed.start - timedelta(days=labels.ATTRIBUTION_DAYS), needed.end).rows(logged)
    # Ids as 64-bit hashes, and times: what says which rows repeat a request, before any list is read.
    hashed = read.select("wall_time_ms", "event_time", request=pl.col("request_id").hash())
    order = hashed.collect(engine="streaming").with_row_index("row")
    without = windows.repeated_rows(order)
    times = order.filter(~pl.col("row").is_in(without.implode()))["event_time"]
    del order
    plan = layout.layout_of(times, window)
    since, until = layout.weeks_needed(window).bounds
    events = outcomes.filter(pl.col("event_time") >= since, pl.col("event_time") < until + labels.LABEL_DELAY_S)
    orders = {bundle_id: counting.tie_order(space.catalogue) for bundle_id, space in spaces.items()}
    return plan, counting.tally(read, plan.parts, events, watermark=watermark, orders=orders, without=without)


def save(report: DriftReport, recipe: Recipe, folder: Path, workspace: Path) -> dict[str, Any]:
    """Return the verdict after writing it, the HTML page and the JSON into `folder` and the run into `workspace`."""
    from monitoring import evidently_report

    snapshot = evidently_report.run(report, recipe.monitoring, seed=recipe.seed, recipe=recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    evidently_report.save_page(snapshot, folder / HTML, library_path())
    snapshot.save_json(str(folder / JSON))
    run_id = evidently_report.add_run(workspace, snapshot, report, recipe=recipe.name)
    verdict = report.as_dict() | {"run_id": run_id}
    files.write_json_atomic(folder / VERDICT, verdict)
    findings_file.write(report.verdict, folder)
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


def _bought(outcomes: pl.LazyFrame, window: Window) -> dict[str, int]:
    counts = aggregate.purchase_counts(windows.outcome_purchases(window.rows(outcomes)))
    return aggregate.counts_of(counts, aggregate.BOUGHT)


def spaces(sources: Sources, recipe: Recipe) -> Iterator[CodeSpace]:
    """Yield the catalogues of the report's bundle and of other arms' bundles."""
    for folder in dict.fromkeys(one for one in (sources.bundle, *sources.others) if one is not None):
        catalogue, bundle_id = _catalogue(folder)
        if catalogue is not None and bundle_id is not None:
            # A bundle without a recipe of its own is read by the report's.
            written = folder / "recipe.yaml"
            own = load_recipe(written)[1] if written.exists() else recipe
            yield CodeSpace(bundle_id, catalogue, _sizes(catalogue, own))


def _sizes(catalogue: pl.DataFrame, recipe: Recipe) -> dict[int, int]:
    codebook = recipe.section("codebook") or {}
    return codebook_drift.level_sizes(catalogue, codebook.get("codebook_size"), codebook.get("num_levels"))


def _usage(counts: pl.DataFrame, catalogue: pl.DataFrame | None, recipe: Recipe) -> list[LevelUsage]:
    if catalogue is None:
        return []
    sizes = _sizes(catalogue, recipe)
    return [
        codebook_drift.usage(
            level, traffic, list(aggregate.counts_of(counts, aggregate.usage_kind(traffic, level)).values()), size
        )
        for level, size in sizes.items()
        for traffic in TRAFFICS
    ]


def _overall(drift: ItemDrift, judged: tuple[Measure, ...], found: tuple[Finding, ...]) -> Level:
    """Return the worst level that anything reached; where nothing did, purchases say whether there is a verdict."""
    warned: list[Level] = ["warn"] if any(measure.warns for measure in judged) else []
    reached = worst([*(one.level for one in found), *warned])
    return reached if reached in ("warn", "alarm") else drift.level


def _sentence(
    level: Level,
    window: Window,
    before: Reference,
    drift: ItemDrift,
    judged: tuple[Measure, ...],
    suspects: tuple[Suspect, ...],
) -> str:
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
    # Purchases' own reasons say it in numbers already; a fault of answers or features has only its name.
    named = [f"suspect {one.cause} in arm {one.arm}" for one in suspects if one.area != "data"]
    why = "; ".join([*drift.reasons, *others, *named])
    return f"{level}: {drift.events:,} purchases of {window} against {before.label}{numbers}" + (
        f" ({why})" if why else ""
    )


def library_path() -> Path:
    """Return the file with the code that every page links."""
    return home.monitoring_dir() / "assets" / f"evidently-{version('evidently')}.js"


def workspace_dir() -> Path:
    """Return the folder of the Evidently workspace."""
    return home.monitoring_dir() / "workspace"


def report_dir(report: DriftReport) -> Path:
    """Return the folder of one week's page and verdict against one reference."""
    return home.monitoring_dir() / "reports" / f"{report.window.start}-{report.purchase_reference.name}"
