"""What users were recommended and why, as one HTML page that opens from disk without a network.

Titles of items and ids of users are data: they are escaped wherever they stand. Plotly is imported only to draw.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sidrec.codebook.page import html_page
from sidrec.codebook.plots import MAIN, OTHER
from sidrec.systems.explanation_page import STYLE, drawn, label, laid_out
from sidrec.systems.s2gr.thoughts import CodeStep, Explanation, PointedCluster

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = f"""{STYLE}
b.chosen {{ color: {OTHER}; }} b.pointed {{ color: {MAIN}; }} b.repeat {{ color: #2f855a; }}
"""
_LINES = 3
# Pixels: of a bar with its titles, and of a plot's frame.
_BAR, _FRAME = 58, 44


def thoughts_page(explanations: Mapping[str, Explanation], *, title: str) -> str:
    """Return the page of explanations by user.

    Raises:
        UsageError: Plotly is not installed.
    """
    return html_page(title, _parts(explanations), style=_STYLE)


def _parts(explanations: Mapping[str, Explanation]) -> Iterator[str]:
    yield (
        "<p class='note'>Before each code of an item's semantic ID the recommender has a thought, which points at "
        "clusters of codes. A cluster is shown by the most popular items in it that the codes so far still allow. "
        "<b class='chosen'>Orange</b> is the cluster that the recommended item's code lies in, "
        "<b class='pointed'>blue</b> the others that the thought points at most; where the longest bar is orange, the "
        "item is what was thought of.</p>"
    )
    for number, (user, explanation) in enumerate(explanations.items()):
        yield from _user_parts(number, user, explanation)


def _user_parts(number: int, user: str, explanation: Explanation) -> Iterator[str]:
    yield f"<h2>{html.escape(user)}</h2>"
    yield f"<p><b>Bought lately:</b> {html.escape('; '.join(explanation.history))}</p>"
    if not explanation.items:
        yield "<p class='note'>Nothing is left to recommend.</p>"
        return
    if explanation.thinking == "ahead":
        yield "<p class='note'>This model has all its thoughts before the first code: only their titles differ.</p>"
    yield "<h3>First thought, of all recommendations</h3>"
    yield drawn(_first_thought(explanation), f"u{number}-first")
    for rank, item in enumerate(explanation.items, start=1):
        yield f"<h3>{rank}. {html.escape(item.title)}</h3>"
        bought = ", <b class='repeat'>bought before: the repeat path counts too</b>" if item.path == "repeat" else ""
        yield f"<p>Item {html.escape(item.item_id)}, score {item.score:.2f}{bought}. Codes, each with its probability "
        yield "after those before it: " + ", ".join(_code(step) for step in item.steps) + ".</p>"
        later = [step for step in item.steps[1:] if step.chosen is not None]
        if later:
            yield drawn(_later_thoughts(later), f"u{number}-i{rank}")


def _code(step: CodeStep) -> str:
    shown = f"{step.code} ({math.exp(step.log_prob):.0%})"
    return shown if step.chosen is not None else f"and {shown}, which tells it from items of the same codes"


def _first_thought(explanation: Explanation) -> "Figure":
    """Return the bars of the thought before the first code, with the clusters that the items' first codes are in."""
    clusters: dict[int, PointedCluster] = {}
    chosen: dict[int, list[int]] = {}
    for rank, item in enumerate(explanation.items, start=1):
        first = item.steps[0]
        assert first.chosen is not None
        clusters |= {cluster.cluster: cluster for cluster in (*first.nearest, first.chosen)}
        chosen.setdefault(first.chosen.cluster, []).append(rank)
    ordered = sorted(clusters.values(), key=lambda cluster: -cluster.cosine)
    marks = {cluster: " ".join(f"→ {rank}." for rank in ranks) for cluster, ranks in chosen.items()}
    return _bars([("", ordered, marks)])


def _later_thoughts(steps: Sequence[CodeStep]) -> "Figure":
    """Return the bars of each thought after the first, one panel a level."""
    panels = []
    for step in steps:
        assert step.chosen is not None
        clusters = {cluster.cluster: cluster for cluster in (*step.nearest, step.chosen)}
        heading = f"thought {step.level + 1}, before code {step.code}"
        panels.append((heading, list(clusters.values()), {step.chosen.cluster: "→ chosen"}))
    return _bars(panels)


def _bars(panels: Sequence[tuple[str, Sequence[PointedCluster], Mapping[int, str]]]) -> "Figure":
    """Return horizontal bars of clusters, nearest on top; those with a mark stand out by it."""
    from plotly.graph_objects import Bar
    from plotly.subplots import make_subplots

    sizes = [len(clusters) for _, clusters, _ in panels]
    height = _BAR * sum(sizes) + _FRAME * len(panels)
    figure = make_subplots(
        len(panels),
        1,
        subplot_titles=[heading for heading, _, _ in panels],
        row_heights=sizes,
        vertical_spacing=_FRAME / height if len(panels) > 1 else 0,
    )
    for row, (_, clusters, marks) in enumerate(panels, start=1):
        places = list(range(len(clusters)))
        figure.add_trace(
            Bar(
                x=[cluster.cluster_prob for cluster in clusters],
                y=places,
                orientation="h",
                marker_color=[OTHER if cluster.cluster in marks else MAIN for cluster in clusters],
                text=[f"{cluster.cluster_prob:.0%} {marks.get(cluster.cluster, '')}" for cluster in clusters],
                textposition="outside",
                cliponaxis=False,
                customdata=[_hover(cluster) for cluster in clusters],
                hovertemplate="%{customdata}<extra></extra>",
                width=0.62,
            ),
            row=row,
            col=1,
        )
        labels = [_label(cluster, bold=cluster.cluster in marks) for cluster in clusters]
        figure.update_yaxes(tickvals=places, ticktext=labels, row=row, col=1)
        figure.update_yaxes(range=[len(clusters) - 0.5, -0.5], row=row, col=1)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    figure.update_yaxes(tickfont={"size": 11}, showgrid=False, zeroline=False, ticks="outside", tickcolor="#ffffff")
    # Room for the text behind a bar of 100 %.
    figure.update_xaxes(range=[0, 1.25], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%", showticklabels=False)
    return laid_out(figure, height=height + 20, top=34 if panels[0][0] else 8)


def _label(cluster: PointedCluster, *, bold: bool) -> str:
    """Return a cluster's titles as short lines; text, never markup."""
    shown = label(cluster.titles[:_LINES]) or "no item is left there"
    return f"<b>{shown}</b>" if bold else shown


def _hover(cluster: PointedCluster) -> str:
    titles = "<br>".join(map(html.escape, cluster.titles))
    return (
        f"cluster {cluster.cluster}: {cluster.cluster_prob:.1%}, cosine {cluster.cosine:.2f}, "
        f"{cluster.num_items:,} items<br>{titles}"
    )
