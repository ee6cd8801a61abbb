"""The Evidently project of this installation and the panels of its dashboard."""

from collections.abc import Iterator, Sequence

from evidently.sdk.models import DashboardPanelPlot, PanelMetric
from evidently.sdk.panels import counter_panel, line_plot_panel
from evidently.ui.workspace import Project, Workspace

PROJECT = "sidrec"
# Runs against other references are in the workspace too; a line mixes none of them.
SHOWN_REFERENCE = "fit"
_DESCRIPTION = "Weekly drift of traffic, answers and code usage (docs/monitoring.md)."


def open_project(store: Workspace, levels: Sequence[int], searches: Sequence[str] = ()) -> Project:
    """Return the project, with every panel that it lacks added; panels that people added stay.

    Args:
        levels: the levels of the codebook whose usage is drawn.
        searches: names of what searches say of themselves.
    """
    found = store.search_project(PROJECT)
    project = found[0] if found else store.create_project(PROJECT, description=_DESCRIPTION)
    present = {panel.title for panel in project.dashboard.model().panels}
    for panel in _panels(levels, searches):
        if panel.title not in present:
            project.dashboard.add_panel(panel, tab="Drift")
    return project


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


def _metric(metric: str, legend: str, **labels: str) -> PanelMetric:
    return PanelMetric(metric=metric, legend=legend, metric_labels=labels, tags=[SHOWN_REFERENCE])
