"""What users were recommended and why, as one HTML page that opens from disk without a network.

Titles of items and ids of users are data: they are escaped wherever they stand. Plotly is imported only to draw.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sidrec.codebook.page import html_page
from sidrec.codebook.plots import INK, MAIN, OTHER, PALE
from sidrec.systems.s2gr.thoughts import CodeStep, Explanation, PointedCluster

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }}
h2 {{ font-size: 1.3rem; margin: 3rem 0 .4rem; padding-top: .6rem; border-top: 2px solid {PALE}; }}
h3 {{ font-size: 1.05rem; margin: 1.6rem 0 .1rem; }}
p {{ margin: .2rem 0; }} p.note {{ color: #52606d; max-width: 50rem; }}
b.chosen {{ color: {OTHER}; }} b.pointed {{ color: {MAIN}; }} b.repeat {{ color: #2f855a; }}
"""
_LINES, _CUT = 3, 46
# Pixels: of a bar with its titles, of a plot's frame, and of the titles' column.
_BAR, _FRAME, _LABELS = 58, 44, 390


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
    yield _drawn(_first_thought(explanation), f"u{number}-first")
    for rank, item in enumerate(explanation.items, start=1):
        yield f"<h3>{rank}. {html.escape(item.title)}</h3>"
        bought = ", <b class='repeat'>bought before: the repeat path counts too</b>" if item.path == "repeat" else ""
        yield f"<p>Item {html.escape(item.item_id)}, score {item.score:.2f}{bought}. Codes, each with its probability "
        yield "after those before it: " + ", ".join(_code(step) for step in item.steps) + ".</p>"
        later = [step for step in item.steps[1:] if step.chosen is not None]
        if later:
            yield _drawn(_later_thoughts(later), f"u{number}-i{rank}")


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
    return figure.update_layout(
        height=height + 20,
        template="plotly_white",
        showlegend=False,
        font={"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": _LABELS, "r": 20, "t": 34 if panels[0][0] else 8, "b": 8},
    )


def _label(cluster: PointedCluster, *, bold: bool) -> str:
    """Return a cluster's titles as short lines; text, never markup."""
    lines = [title if len(title) <= _CUT else f"{title[: _CUT - 1]}…" for title in cluster.titles[:_LINES]]
    label = "<br>".join(map(html.escape, lines)) or "no item is left there"
    return f"<b>{label}</b>" if bold else label


def _hover(cluster: PointedCluster) -> str:
    titles = "<br>".join(map(html.escape, cluster.titles))
    return (
        f"cluster {cluster.cluster}: {cluster.cluster_prob:.1%}, cosine {cluster.cosine:.2f}, "
        f"{cluster.num_items:,} items<br>{titles}"
    )


def _drawn(figure: "Figure", name: str) -> str:
    """Return a plot; `name` is its own, so equal pages are equal byte by byte."""
    config = {"displayModeBar": False, "responsive": True}
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    return drawn
