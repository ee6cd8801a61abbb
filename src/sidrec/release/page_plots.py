"""The plots of a release's page; Plotly is imported only when one is drawn."""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sidrec.codebook.plots import INK, MAIN, OTHER, PALE, dressed
from sidrec.evaluation.gates import GateResult
from sidrec.release.row import LedgerRow, decisions

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GOOD, BAD = "#2f855a", "#c53030"
LEVELS = {"insufficient": ("#8a5a8c", -1), "ok": (GOOD, 0), "warn": (OTHER, 1), "alarm": (BAD, 2)}
_RESULTS = {"pass": GOOD, "fail": BAD, "inconclusive": OTHER}
_ROW, _FRAME = 46, 130


def gates(answers: Sequence[GateResult]) -> "Figure":
    """Return each gate that has an interval: observed with its ends, and where the limit is, on an axis of its own."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    shown = [gate for gate in answers if gate.interval is not None]
    figure = make_subplots(len(shown), 1, vertical_spacing=0.6 / max(1, len(shown)))
    for row, gate in enumerate(shown, start=1):
        assert gate.interval is not None
        low, high = gate.interval
        reach = {
            "type": "data",
            "symmetric": False,
            "array": [high - gate.observed],
            "arrayminus": [gate.observed - low],
        }
        name, colour = html.escape(f"{gate.gate}: {gate.name}"), _RESULTS[gate.result]
        dot = Scatter(
            x=[gate.observed],
            y=[name],
            error_x={**reach, "color": colour, "thickness": 2, "width": 7},
            mode="markers",
            marker={"color": colour, "size": 10},
            showlegend=False,
            hovertemplate="%{x:.4g}<extra></extra>",
        )
        figure.add_trace(dot, row=row, col=1)
        figure.add_vline(gate.threshold, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1)
    figure.update_yaxes(automargin=True)
    return dressed(figure, _FRAME + 2 * _ROW * len(shown), right=30)


def shares(rows: Sequence[LedgerRow], bundle_id: str, now: datetime) -> "Figure":
    """Return what share of users the ledger gave a bundle, over time."""
    from plotly.graph_objects import Figure, Scatter

    moves = decisions(rows)
    times = [*(row.time for row in moves), now]
    given = [sum(arm.share for arm in row.revision.arms if arm.bundle.bundle_id == bundle_id) for row in moves]
    texts = [f"row {row.seq}: {html.escape(row.action)}" for row in moves]
    figure = Figure(
        Scatter(
            x=[time.isoformat() for time in times],
            y=[*given, given[-1] if given else 0.0],
            text=[*texts, "now"],
            line={"shape": "hv", "color": MAIN},
            mode="lines+markers",
            hovertemplate="%{text}: %{y:.0%}<extra></extra>",
        )
    )
    figure.update_yaxes(tickformat=".0%", range=[-0.02, 1.05], title="share of users")
    return dressed(figure, 280)


def usage(levels: Mapping[str, Sequence[Mapping[str, Any]]], word: str) -> "Figure":
    """Return how many codes of each level are in use in effect (perplexity), for each view of the traffic."""
    from plotly.graph_objects import Bar, Figure

    colours = {"catalogue": MAIN, "traffic": "#7fb0dc", "served": OTHER}
    figure = Figure()
    for name, rows in levels.items():
        names = [f"{word} {level}" for level in range(len(rows))]
        heights = [row["perplexity"] for row in rows]
        bar = {"marker_color": colours.get(name, PALE), "texttemplate": "%{y:.1f}", "hoverinfo": "none"}
        figure.add_trace(Bar(x=names, y=heights, name=html.escape(name), **bar))
    figure.update_layout(barmode="group")
    figure.update_yaxes(rangemode="tozero", title="codes in use, in effect")
    return dressed(figure, 340)


def weeks(reports: Sequence[Mapping[str, Any]], areas: Sequence[str]) -> "Figure":
    """Return the worst level of each area in each week, as coloured squares; a white one was not measured."""
    from plotly.graph_objects import Figure, Heatmap

    names = [str(report["first_day"]) for report in reports]
    cells = [[report["areas"].get(area) for report in reports] for area in areas]
    colours = [colour for colour, _ in LEVELS.values()]
    edges = [[place / len(colours), (place + 1) / len(colours)] for place in range(len(colours))]
    scale = [[edge, colour] for colour, ends in zip(colours, edges, strict=True) for edge in ends]
    figure = Figure(
        Heatmap(
            x=names,
            y=list(areas),
            z=[[None if level is None else LEVELS[level][1] for level in row] for row in cells],
            text=[["" if level is None else level for level in row] for row in cells],
            texttemplate="%{text}",
            textfont={"color": "#ffffff"},
            colorscale=scale,
            zmin=-1.5,
            zmax=2.5,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="week of %{x}, %{y}: %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(type="category")
    return dressed(figure, _FRAME + 34 * len(areas))
