"""The Evidently project of this installation and the panels of its dashboard."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from evidently.sdk.models import DashboardPanelPlot, PanelMetric
from evidently.sdk.panels import counter_panel, line_plot_panel
from evidently.ui.workspace import Project, Workspace

PROJECT = "sidrec"
# Runs against other references are in the workspace too; a line mixes none of them.
SHOWN_REFERENCE = "fit"
_DESCRIPTION = "Weekly drift of traffic, answers and code usage (docs/monitoring.md)."


def open_project(
    store: Workspace,
    levels: Sequence[int],
    searches: Sequence[str] = (),
    *,
    figures: Mapping[str, Collection[str]] | None = None,
    recipe: str = "",
) -> Project:
    """Return the project over everything, with every panel that it lacks added; panels that people added stay.

    Its panels are of all traffic, of each pipeline (the recipe that made the bundle), and of each arm.

    Args:
        levels: the levels of the codebook whose usage is drawn.
        searches: names of what searches say of themselves.
        figures: names of the figures that each arm has (`arm_metrics`).
        recipe: name of the recipe whose thresholds judged.
    """
    groups: list[tuple[str, Iterable[DashboardPanelPlot]]] = [("Drift", _panels(levels, searches))]
    if recipe:
        groups.append((f"Pipeline {recipe}", _of_pipeline(recipe)))
    groups += [(f"Arm {arm}", _of_arm(arm, names, f"Arm {arm}", {})) for arm, names in (figures or {}).items()]
    return _with_panels(store, PROJECT, _DESCRIPTION, groups)


def open_bundle_project(store: Workspace, bundle_id: str, figures: Mapping[str, Collection[str]]) -> Project:
    """Return the project of one bundle: the weeks that it served, as each arm that it was.

    Each has a project of its own, because Evidently draws all panels of one on one page.

    Args:
        figures: names of the figures of each arm that serves the bundle now.
    """
    groups = [
        (f"Arm {arm}", _of_arm(arm, names, f"{bundle_id} as {arm}", {bundle_label(arm): bundle_id}))
        for arm, names in figures.items()
    ]
    return _with_panels(store, f"{PROJECT} {bundle_id}", f"The weeks that {bundle_id} served.", groups)


def _with_panels(
    store: Workspace, name: str, description: str, groups: Iterable[tuple[str, Iterable[DashboardPanelPlot]]]
) -> Project:
    found = [project for project in store.search_project(name) if project.name == name]
    project = found[0] if found else store.create_project(name, description=description)
    present = {panel.title for panel in project.dashboard.model().panels}
    for group, panels in groups:
        for panel in panels:
            if panel.title not in present:
                project.dashboard.add_panel(panel, tab=group)
    return project


def metadata(recipe: str, bundles: Mapping[str, str]) -> dict[str, str]:
    """Return what a run says of itself so that the panels of its pipeline and of its bundles find it."""
    return {"recipe": recipe} | {bundle_label(arm): bundle for arm, bundle in bundles.items()}


def bundle_label(arm: str) -> str:
    """Return the label under which a run says what an arm served."""
    return f"bundle of {arm}"


def _of_pipeline(recipe: str) -> Iterator[DashboardPanelPlot]:
    only = {"recipe": recipe}
    name = f"Pipeline {recipe}"
    yield counter_panel(f"{name}: verdict", [_metric("DriftVerdict", "verdict", only)], size="half")
    yield line_plot_panel(f"{name}: requests with a hit", [_metric("HitRate", "hit rate", only)], size="half")
    for title, statistics in (
        ("PSI and unseen share", ("psi", "unseen_share")),
        ("JS over its noise floor", ("ratio",)),
    ):
        values = [_metric("ItemDriftStatistic", one, only, statistic=one) for one in statistics]
        yield line_plot_panel(f"{name}: {title}", values, size="half")


# Figures of one panel; it is drawn where an arm has any of them.
_ANSWERS = {
    "answers that are cold, degraded, short": ("cold_share", "degraded_share", "short_list"),
    "null histories, broken ties": ("null_history", "broken_ties"),
    "coverage of the catalogue, share of its head": ("coverage", "head_share"),
}
_QUALITY = ("recall@10", "ndcg@10")
_TRAFFICS = ("catalogue", "served", "clicked")


def _of_arm(arm: str, names: Collection[str], title: str, only: Mapping[str, str]) -> Iterator[DashboardPanelPlot]:
    for panel, figures in _ANSWERS.items():
        if set(figures) & set(names):
            values = [_metric("AnswerFigure", one, only, arm=arm, name=one) for one in figures]
            yield line_plot_panel(f"{title}: {panel}", values, size="half")
    if set(_QUALITY) & set(names):
        values = [_metric("RankingQuality", one, only, arm=arm, name=one) for one in _QUALITY]
        yield line_plot_panel(f"{title}: ranking, once labels are in", values, size="half")
    levels = {parts[1] for name in names if len(parts := name.split("/")) == 3 and parts[0] in _TRAFFICS}
    for level in sorted(levels, key=int):
        for statistic in ("normalised_entropy", "utilisation"):
            labels = {"arm": arm, "level": level, "statistic": statistic}
            values = [_metric("CodeHealth", one, only, **labels, traffic=one) for one in _TRAFFICS]
            yield line_plot_panel(f"{title}: codes of level {level}, {statistic}", values, size="half")


def _panels(levels: Sequence[int], searches: Sequence[str]) -> Iterator[DashboardPanelPlot]:
    yield counter_panel(
        "Verdict: -1 insufficient, 0 ok, 1 warn, 2 alarm", [_metric("DriftVerdict", "verdict")], size="half"
    )
    yield counter_panel(
        "Week",
        [_metric("RowTotal", "requests", kind="requests"), _metric("RowTotal", "purchases", kind="bought_item")],
        size="half",
    )
    for title, statistics in (
        ("Item drift: PSI and unseen share", ("psi", "unseen_share")),
        ("Item drift: JS over its noise floor", ("ratio",)),
    ):
        values = [_metric("ItemDriftStatistic", statistic, statistic=statistic) for statistic in statistics]
        yield line_plot_panel(title, values, size="half")
    yield line_plot_panel(
        "Inputs: PSI against earlier requests",
        [_metric("FeatureDrift", kind, kind=kind) for kind in ("history_length", "known_share", "history_source")],
        size="half",
    )
    yield line_plot_panel(
        "Predictions against earlier requests: served items (times noise floor), source and score (PSI)",
        [_metric("FeatureDrift", kind, kind=kind) for kind in ("served_item", "source", "top_score")],
        size="half",
    )
    yield line_plot_panel("Requests with a hit", [_metric("HitRate", "hit rate")], size="half")
    for name in searches:
        values = [
            _metric("SearchNumber", statistic, name=name, statistic=statistic) for statistic in ("mean", "entropy")
        ]
        yield line_plot_panel(f"Search: {name}", values, size="half")
    for statistic in ("utilisation", "perplexity", "largest_share"):
        for level in levels:
            values = [
                _metric("CodeUsage", traffic, traffic=traffic, level=str(level), statistic=statistic)
                for traffic in ("catalogue", "served", "bought")
            ]
            yield line_plot_panel(f"Codes of level {level}: {statistic}", values, size="half")


def _metric(metric: str, legend: str, only: Mapping[str, str] | None = None, /, **labels: str) -> PanelMetric:
    return PanelMetric(metric=metric, legend=legend, metric_labels=labels, tags=[SHOWN_REFERENCE], metadata=only or {})
