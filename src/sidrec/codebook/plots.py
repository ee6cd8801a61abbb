"""The plots of a codebook's pages; Plotly is imported only when one is drawn.

Axes: `item` rows, `level` (or slot) codes of a semantic ID, `code` entries of one codebook.
"""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sidrec.data.catalog import PAD, Catalog

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK, MAIN, OTHER, PALE = "#1f2933", "#2563a8", "#d97706", "#dbe7f3"
_SCALE = [[0.0, "#ffffff"], [0.001, PALE], [0.4, "#7fb0dc"], [1.0, "#123a66"]]
_BOXES = ("#c9dcef", "#f3dfc1", "#d5e8d4", "#e6d5ea", "#cfe6e6", "#f2d3d3")
# Prefixes drawn in the tree: the page of a large catalogue stays small and its boxes readable.
_BRANCHES, _TWIGS, _TITLES = 16, 5, 6
# The tree's size in pixels and that of a character and a line, by which a box gets the text it has room for.
_WIDTH, _HEIGHT, _CHARACTER, _LINE = 1040, 860, 9.5, 15.0
# Boxes are whole numbers, so that those inside one never add up to more than it.
_PARTS = 10**9


def usage_map(codes: NDArray[np.int32], size: int, word: str) -> "Figure":
    """Return one square a code, its colour the logarithm of its items; one scale for all levels."""
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    levels = codes.shape[1]
    columns = min(levels, 4)
    rows = -(-levels // columns)
    side = int(np.ceil(size**0.5))
    figure = make_subplots(rows, columns, subplot_titles=[f"{word} {level}" for level in range(levels)])
    largest = 1
    for level in range(levels):
        counts = np.bincount(codes[:, level], minlength=size)[:size]
        largest = max(largest, int(counts.max(initial=0)))
        colour, text = (np.full(side * side, None, dtype=object) for _ in range(2))
        colour[:size] = np.round(np.log10(1 + counts), 3)
        text[:size] = [f"code {code}: {count:,} items" for code, count in enumerate(counts.tolist())]
        squares = {"z": colour.reshape(side, side).tolist(), "text": text.reshape(side, side).tolist()}
        figure.add_trace(
            Heatmap(**squares, coloraxis="coloraxis", xgap=1, ygap=1, hovertemplate="%{text}<extra></extra>"),
            row=level // columns + 1,
            col=level % columns + 1,
        )
    marks = [mark for mark in (0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 100_000) if mark <= largest]
    bar = {"title": "items", "tickvals": np.log10(1 + np.array(marks)).tolist(), "ticktext": [f"{m:,}" for m in marks]}
    axis = {"colorscale": _SCALE, "cmin": 0, "cmax": float(np.log10(1 + largest)), "colorbar": bar}
    figure.update_layout(coloraxis=axis, plot_bgcolor="#e4e9ee")
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed")
    return dressed(figure, 60 + 290 * rows)


def bucket_curves(codes: NDArray[np.int32], size: int, traffic: NDArray[np.float64], word: str) -> "Figure":
    """Return the codes' shares of the catalogue and of its traffic, largest first, one panel a level."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    levels = codes.shape[1]
    figure = make_subplots(1, levels, subplot_titles=[f"{word} {level}" for level in range(levels)], shared_yaxes=True)
    for level in range(levels):
        for name, weights, colour in (("catalogue", np.ones(len(codes)), MAIN), ("traffic", traffic, OTHER)):
            mass = np.sort(np.bincount(codes[:, level], weights=weights, minlength=size))[::-1]
            share = mass[mass > 0] / max(mass.sum(), 1e-12)
            figure.add_trace(
                Scatter(
                    x=list(range(1, len(share) + 1)),
                    y=[float(f"{value:.4g}") for value in share],
                    name=name,
                    line={"color": colour},
                    showlegend=level == 0,
                    hovertemplate="rank %{x}: %{y:.2%}<extra></extra>",
                ),
                row=1,
                col=level + 1,
            )
    figure.update_yaxes(type="log", dtick=1, tickformat="~%")
    figure.update_xaxes(title="rank of the code")
    figure = dressed(figure, 360)
    return figure.update_layout(legend={"y": -0.22, "yanchor": "top", "x": 0.5, "xanchor": "center"})


def title_tree(catalog: Catalog, traffic: NDArray[np.float64]) -> "Figure":
    """Return the prefixes of most traffic as boxes in boxes with their titles, each as large as its whole traffic."""
    from plotly.graph_objects import Figure, Treemap

    parts = np.floor(traffic / max(float(traffic.sum()), 1e-12) * _PARTS).astype(np.int64) + 1
    # Label, titles, parent, size and colour by id. What a box has beyond those drawn inside it stays empty.
    nodes: dict[str, tuple[str, list[str], str, int, str]] = {}
    first = catalog.codes[:, 0]
    second = catalog.codes[:, 1] if catalog.num_codes > 1 else np.full(len(catalog), PAD)
    for place, code in enumerate(_largest(first, parts, _BRANCHES)):
        colour, inside = _BOXES[place % len(_BOXES)], np.flatnonzero(first == code)
        label = f"{code} · {len(inside):,} items"
        nodes[f"{code}"] = (label, _titles(catalog, inside, parts), "", int(parts[inside].sum()), colour)
        for other in _largest(second[inside], parts[inside], _TWIGS):
            rows = inside[second[inside] == other]
            label = f"{code}, {other}" if other != PAD else f"{code}"
            size = int(parts[rows].sum())
            nodes[f"{code}-{other}"] = (label, _titles(catalog, rows, parts), f"{code}", size, colour)
    columns = list(zip(*nodes.values(), strict=True)) or [()] * 5
    labels, titles, parents, values, colours = (list(column) for column in columns)
    drawn = sum(value for value, parent in zip(values, parents, strict=True) if parent == "")
    texts = [
        f"<b>{label}</b>" + ("" if parent == "" else _fitting(names, value / drawn))
        for label, names, parent, value in zip(labels, titles, parents, values, strict=True)
    ]
    frame = {"line": {"color": "#ffffff", "width": 1.5}, "pad": {"t": 22, "l": 3, "r": 3, "b": 3}}
    figure = Figure(
        Treemap(
            ids=list(nodes),
            labels=labels,
            text=texts,
            textinfo="text",
            customdata=["<br>".join(map(html.escape, names)) for names in titles],
            parents=parents,
            values=values,
            branchvalues="total",
            hovertemplate="%{label}<br>%{customdata}<extra></extra>",
            pathbar={"visible": False},
            marker={"colors": colours, **frame},
            tiling={"pad": 2},
            root={"color": "#ffffff"},
        )
    )
    figure = dressed(figure, _HEIGHT)
    return figure.update_layout(
        margin={"l": 4, "r": 4, "t": 8, "b": 8}, uniformtext={"minsize": 9, "mode": "hide"}, font={"size": 11}
    )


def residuals(figures: Mapping[str, Any]) -> "Figure":
    """Return the errors of fitted and of new items over one axis."""
    from plotly.graph_objects import Bar, Figure

    edges = np.array(figures["edges"])
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    figure = Figure()
    for name, colour in (("fitted", MAIN), ("new", OTHER)):
        side = figures[name]
        if side is not None:
            share = (np.array(side["histogram"]) / max(1, side["n"])).tolist()
            label = f"{name}: {side['n']:,} items, mean {side['mean']:.3f}, median {side['median']:.3f}"
            figure.add_trace(Bar(x=centres, y=share, name=label, marker_color=colour, opacity=0.65))
    figure.update_layout(barmode="overlay", bargap=0.02, showlegend=True)
    figure.update_xaxes(title="share of the squared length left over")
    figure.update_yaxes(title="share of the items", tickformat=".0%")
    return dressed(figure, 360)


def kept_bars(depths: Sequence[str], items: Sequence[float], traffic: Sequence[float]) -> "Figure":
    """Return shares of items and of their traffic side by side."""
    from plotly.graph_objects import Bar, Figure

    style = {"texttemplate": "%{y:.1%}", "textposition": "auto", "hovertemplate": "%{x}: %{y:.2%}<extra></extra>"}
    figure = Figure(
        [
            Bar(x=depths, y=items, name="items", marker_color=MAIN, **style),
            Bar(x=depths, y=traffic, name="traffic", marker_color=OTHER, **style),
        ]
    )
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return dressed(figure, 340)


def information_map(matrix: Sequence[Sequence[float]]) -> "Figure":
    """Return the mutual information of every two slots."""
    from plotly.graph_objects import Figure, Heatmap

    names = [f"slot {slot}" for slot in range(len(matrix))]
    shape = {"colorscale": _SCALE, "zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2}
    figure = Figure(Heatmap(z=matrix, x=names, y=names, texttemplate="%{z:.2f}", hoverinfo="none", **shape))
    figure.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain")
    figure.update_xaxes(constrain="domain")
    return dressed(figure, 420)


def load_bars(shares: Sequence[float]) -> "Figure":
    """Return the experts' shares of the load beside the even share."""
    from plotly.graph_objects import Bar, Figure

    names = [f"expert {slot}" for slot in range(len(shares))]
    figure = Figure(Bar(x=names, y=list(shares), marker_color=MAIN, texttemplate="%{y:.1%}", hoverinfo="none"))
    figure.add_hline(1 / max(1, len(shares)), line={"color": OTHER, "dash": "dash"})
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return dressed(figure, 320)


def _largest(codes: NDArray[np.int32], weights: NDArray[np.int64], count: int) -> Sequence[int]:
    """Return the codes of most weight."""
    found, inverse = np.unique(codes, return_inverse=True)
    mass = np.bincount(inverse, weights=weights)
    largest: list[int] = found[np.argsort(-mass, kind="stable")[:count]].tolist()
    return largest


def _titles(catalog: Catalog, rows: NDArray[np.int64], weights: NDArray[np.int64]) -> list[str]:
    """Return the titles of most weight."""
    best = rows[np.argsort(-weights[rows], kind="stable")][:_TITLES].tolist()
    return [(catalog.titles[row] or catalog.item_ids[row])[:60] for row in best]


def _fitting(titles: Sequence[str], share: float) -> str:
    """Return lines of titles, as many and as long as a square of this share of the tree holds; text, never markup."""
    side = (share * _WIDTH * _HEIGHT) ** 0.5
    lines, width = max(0, int(side / _LINE) - 2), max(4, int(side / _CHARACTER))
    cut = [title if len(title) <= width else f"{title[: width - 1]}…" for title in titles[:lines]]
    return "".join(f"<br>{html.escape(title)}" for title in cut)


def dressed(figure: "Figure", height: int, *, right: int = 20) -> "Figure":
    """Return a plot in the look of all pages; `height` and the margin to its right are pixels."""
    figure.update_layout(
        height=height,
        template="plotly_white",
        font={"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": 60, "r": right, "t": 50, "b": 50},
        legend={"orientation": "h", "y": 1.14},
    )
    return figure
