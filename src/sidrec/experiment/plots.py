"""The plots of a read-out's page; Plotly is imported only when one is drawn."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sidrec.codebook.plots import INK, MAIN, OTHER, dressed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROW, _FRAME = 46, 130
GOOD, BAD = "#2f855a", "#c53030"


class Line(NamedTuple):
    """One interval of a plot: its name, the estimate, both ends, and its colour."""

    name: str
    value: float
    interval: tuple[float, float]
    colour: str = MAIN


def intervals(lines: Sequence[Line], marks: Mapping[str, float], *, percent: bool) -> "Figure":
    """Return intervals under one another on one axis, with vertical marks (zero, the least gain worth shipping)."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for line in lines:
        low, high = line.interval
        reach = {"type": "data", "symmetric": False, "array": [high - line.value], "arrayminus": [line.value - low]}
        figure.add_trace(
            Scatter(
                x=[line.value],
                y=[html.escape(line.name)],
                error_x={**reach, "color": line.colour, "thickness": 2, "width": 7},
                mode="markers",
                marker={"color": line.colour, "size": 10},
                showlegend=False,
                hovertemplate=f"%{{x:{'.2%' if percent else '.4g'}}}<extra></extra>",
            )
        )
    for name, at in marks.items():
        dash = "solid" if at == 0 else "dash"
        colour = INK if at == 0 else OTHER
        figure.add_vline(at, line={"color": colour, "width": 1, "dash": dash}, annotation_text=html.escape(name))
    figure.update_xaxes(tickformat=".1%" if percent else None, zeroline=False)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return dressed(figure, _FRAME + _ROW * len(lines), right=30)


def code_bars(codes: Sequence[Mapping[str, Any]]) -> "Figure":
    """Return how many codes of each level an arm uses in effect (perplexity), served and taken."""
    from plotly.graph_objects import Bar, Figure

    figure = Figure()
    colours = (MAIN, OTHER, "#5b8c5a", "#8a5a8c", "#4f9a9a", "#a34848")
    for number, row in enumerate(codes):
        names = [f"level {level['level']}<br>{_traffic(level['traffic'])}" for level in row["levels"]]
        heights = [level["perplexity"] for level in row["levels"]]
        bar = {"marker_color": colours[number % len(colours)], "texttemplate": "%{y:.1f}", "hoverinfo": "none"}
        figure.add_trace(Bar(x=names, y=heights, name=html.escape(row["arm"]), **bar))
    figure.update_layout(barmode="group")
    figure.update_yaxes(rangemode="tozero")
    return dressed(figure, 360, right=30)


def _traffic(name: str) -> str:
    return {"bought": "taken"}.get(name, name)
