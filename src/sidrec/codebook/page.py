"""A codebook's health, or a change of it, as one HTML page that opens from disk without a network.

The plots are Plotly's, whose code is in the page. Titles of items are data: they are escaped wherever they stand.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sidrec.data.catalog import PAD, Catalog
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_INK, _MAIN, _OTHER, _PALE = "#1f2933", "#2563a8", "#d97706", "#dbe7f3"
_SCALE = [[0.0, "#f4f7fa"], [0.001, _PALE], [0.35, "#7fb0dc"], [1.0, "#123a66"]]
_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {_INK}; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .2rem; }}
p.note {{ color: #52606d; margin: .1rem 0 .6rem; max-width: 46rem; }}
.say {{ padding: .7rem 1rem; border-left: 5px solid #2f855a; background: #f0faf4; margin: 1rem 0; }}
.say.alarm {{ border-color: #c53030; background: #fdf2f2; }}
table {{ border-collapse: collapse; margin: .6rem 0; }} td, th {{ padding: .25rem .8rem; text-align: right; }}
th {{ border-bottom: 2px solid {_PALE}; font-weight: 600; }} td:first-child, th:first-child {{ text-align: left; }}
tr:nth-child(even) td {{ background: #f7f9fb; }} td.text {{ text-align: left; }}
"""
# Prefixes drawn in the tree: the page of a large catalogue stays small.
_BRANCHES, _TWIGS, _LEAVES = 40, 8, 4


def health_page(health: Mapping[str, Any], *, title: str, catalog: Catalog) -> str:
    """Return the page of a codebook's health record (`health.json`).

    Raises:
        UsageError: Plotly is not installed.
    """
    return "".join(_page(f"Codebook health: {title}", _health_parts(health, catalog)))


def diff_page(difference: Mapping[str, Any], *, title: str) -> str:
    """Return the page of a `diff` between two catalogues.

    Raises:
        UsageError: Plotly is not installed.
    """
    return "".join(_page(f"Semantic IDs: {title}", _diff_parts(difference)))


def _health_parts(health: Mapping[str, Any], catalog: Catalog) -> Iterator[str]:
    report, levels = health["report"], health["levels"]
    alarm = report["alarm"]
    yield f"<div class='say{' alarm' if alarm['raised'] else ''}'>{html.escape(alarm['sentence'].capitalize())}.</div>"
    if "sentence" in health:
        yield f"<div class='say'>{html.escape(health['sentence'])}</div>"
    for gate in health.get("gates", []):
        mark = "" if gate["result"] == "pass" else " alarm"
        yield (
            f"<div class='say{mark}'><b>{html.escape(gate['name'])}: {gate['result']}.</b> "
            f"{html.escape(gate['sentence'])}</div>"
        )
    yield "<h2>Figures by level</h2>"
    yield from _level_table(health, report)
    before, after = report["identity"]["before"], report["identity"]["after"]
    yield (
        f"<p>{after['items']:,} items. Before collisions were resolved {before['collision_rate']:.2%} of the semantic "
        f"IDs were missing ({before['distinct']:,} distinct, at most {before['max_bucket']} items on one); as "
        f"published {after['collision_rate']:.2%}, and {after['uniquely_identified']:.2%} of the items have one of "
        "their own.</p>"
    )
    size, shown = levels[0]["codebook_size"], len(levels)
    traffic = catalog.recent_popularity if catalog.recent_popularity.sum() else catalog.popularity
    yield "<h2>How often each code is used</h2>"
    yield "<p class='note'>One square a code, darker for more items; an empty square is a dead code.</p>"
    yield _draw(_usage_map(catalog.codes[:, :shown], size))
    yield "<h2>Sizes of the codes, largest first</h2>"
    yield (
        "<p class='note'>A flat line is a balanced level. Where the traffic's line is much steeper than the "
        "catalogue's, few codes carry most of what people see.</p>"
    )
    yield _draw(_bucket_curves(catalog.codes[:, :shown], size, traffic))
    yield "<h2>What the codes mean</h2>"
    yield (
        "<p class='note'>Prefixes of the semantic IDs as boxes, as large as their traffic; titles are the most popular "
        "items below them. A good codebook puts like things into one box.</p>"
    )
    yield _draw(_title_tree(catalog, traffic))
    if report["residual"] is not None:
        yield "<h2>How well the codes explain the items</h2>"
        yield (
            "<p class='note'>Share of an item's vector that its codes leave over. New items far to the right of fitted "
            "ones mean that the codewords no longer span the catalogue.</p>"
        )
        yield _draw(_residuals(report["residual"]))
    if report["prefix_stability"] is not None:
        yield "<h2>What stayed since the parent</h2>"
        yield "<p class='note'>Share of published items, and of their traffic, that keep their first codes.</p>"
        yield _draw(_stability(report["prefix_stability"]))
    if report["mutual_information"] is not None:
        yield "<h2>How much the slots repeat one another</h2>"
        yield "<p class='note'>Normalised mutual information: 1 where one slot says all that the other says.</p>"
        yield _draw(_information(report["mutual_information"]))


def _diff_parts(difference: Mapping[str, Any]) -> Iterator[str]:
    items, moved = difference["items"], difference["moved"]
    yield (
        f"<div class='say'>{moved['items']:,} of {items['common']:,} items have another semantic ID "
        f"({moved['share']:.1%} of the items, {moved['traffic']:.1%} of the traffic); "
        f"{difference['history_tokens_rewritten']:.1%} of the tokens in histories are rewritten. {items['added']:,} "
        f"items are new, {items['removed']:,} removed, {items['restored']:,} back.</div>"
    )
    yield "<h2>How much of the semantic ID is still the same</h2>"
    yield "<p class='note'>Items by the number of leading codes they keep; the last bar kept all.</p>"
    yield _draw(_prefix_bars(difference["shared_prefix"]))
    yield "<h2>Changes by level</h2>"
    dead = difference["dead_codes"]
    yield "<table><tr><th>level</th><th>items changed</th><th>dead codes before</th><th>after</th></tr>"
    for level, share in enumerate(difference["changed_by_level"]):
        ends = [str(side[level]) if level < len(side) else "" for side in (dead["before"], dead["after"])]
        yield f"<tr><td>{level}</td><td>{share:.1%}</td><td>{ends[0]}</td><td>{ends[1]}</td></tr>"
    yield "</table>"
    shared = difference["collisions"]
    yield (
        f"<p>Items that share the quantizer's codes with another one: {shared['before']:,} before, {shared['after']:,} "
        f"after ({shared['created']:,} began to, {shared['healed']:,} ceased).</p>"
    )
    if difference["top_movers"]:
        yield "<h2>Moved items that most people see</h2>"
        yield "<table><tr><th>item</th><th>title</th><th>traffic</th><th>before</th><th>after</th></tr>"
        for mover in difference["top_movers"]:
            yield (
                f"<tr><td>{html.escape(mover['item_id'])}</td><td class='text'>{html.escape(mover['title'])}</td>"
                f"<td>{mover['traffic']:.2%}</td><td>{mover['before']}</td><td>{mover['after']}</td></tr>"
            )
        yield "</table>"


def _page(title: str, parts: Iterator[str]) -> Iterator[str]:
    script = _plotly_script()
    yield f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
    yield f"<style>{_STYLE}</style><script>{script}</script></head><body><h1>{html.escape(title)}</h1>"
    yield from parts
    yield "</body></html>\n"


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UsageError(
            "the page needs Plotly, which is not installed", next_step="pip install 'sidrec[reports]', or use --json"
        ) from error
    script: str = get_plotlyjs()
    return script


def _level_table(health: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    names = ("used", "dead codes", "perplexity", "entropy", "Gini", "largest code", "used by traffic", "its entropy")
    yield "<table><tr><th>level</th>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    for plain, weighted in zip(health["levels"], report["views"]["traffic"], strict=True):
        cells = (
            f"{plain['utilisation']:.1%}",
            str(plain["dead_codes"]),
            f"{plain['perplexity']:.1f}",
            f"{plain['normalised_entropy']:.3f}",
            f"{plain['gini']:.3f}",
            f"{plain['max_bucket']:,} items",
            f"{weighted['utilisation']:.1%}",
            f"{weighted['normalised_entropy']:.3f}",
        )
        yield f"<tr><td>{plain['level']}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _usage_map(codes: NDArray[np.int32], size: int) -> "Figure":
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    levels = codes.shape[1]
    columns = min(levels, 4)
    rows = -(-levels // columns)
    figure = make_subplots(rows, columns, subplot_titles=[f"level {level}" for level in range(levels)])
    side = int(np.ceil(size**0.5))
    for level in range(levels):
        counts = np.bincount(codes[:, level], minlength=size)[:size].astype(object)
        grid = np.full(side * side, None, dtype=object)
        grid[:size] = counts
        names = np.array([f"code {code}" for code in range(side * side)]).reshape(side, side)
        figure.add_trace(
            Heatmap(
                z=grid.reshape(side, side).tolist(),
                text=names.tolist(),
                colorscale=_SCALE,
                showscale=level == 0,
                colorbar={"title": "items"},
                coloraxis=None,
                xgap=1,
                ygap=1,
                hovertemplate="%{text}: %{z} items<extra></extra>",
            ),
            row=level // columns + 1,
            col=level % columns + 1,
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return _dressed(figure, 60 + 290 * rows)


def _bucket_curves(codes: NDArray[np.int32], size: int, traffic: NDArray[Any]) -> "Figure":
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    levels = codes.shape[1]
    figure = make_subplots(1, levels, subplot_titles=[f"level {level}" for level in range(levels)], shared_yaxes=True)
    for level in range(levels):
        for name, weights, colour in (
            ("catalogue", np.ones(len(codes)), _MAIN),
            ("traffic", np.asarray(traffic, dtype=np.float64), _OTHER),
        ):
            mass = np.sort(np.bincount(codes[:, level], weights=weights, minlength=size))[::-1]
            share = mass / max(mass.sum(), 1e-12)
            used = share > 0
            figure.add_trace(
                Scatter(
                    x=np.flatnonzero(used).tolist(),
                    y=share[used].tolist(),
                    name=name,
                    line={"color": colour},
                    showlegend=level == 0,
                    hovertemplate="rank %{x}: %{y:.2%}<extra></extra>",
                ),
                row=1,
                col=level + 1,
            )
    figure.update_yaxes(type="log", tickformat=".2%")
    figure.update_xaxes(title="rank of the code")
    return _dressed(figure, 330)


def _title_tree(catalog: Catalog, traffic: NDArray[Any]) -> "Figure":
    from plotly.graph_objects import Figure, Treemap

    weights = np.asarray(traffic, dtype=np.float64) + 1e-3
    # Label, parent and weight by id; boxes above a leaf are as large as what is in them.
    nodes: dict[str, tuple[str, str, float]] = {}
    first = catalog.codes[:, 0]
    for code in _largest(first, weights, _BRANCHES):
        inside = np.flatnonzero(first == code)
        nodes[f"{code}"] = (f"{code} · {_title(catalog, inside[np.argmax(weights[inside])])}", "", 0.0)
        twigs = catalog.codes[inside, 1] if catalog.num_codes > 1 else np.full(len(inside), PAD)
        for second in _largest(twigs, weights[inside], _TWIGS):
            twig, leaves = f"{code}-{second}", inside[twigs == second]
            nodes[twig] = (f"{code}, {second}", f"{code}", 0.0)
            best = leaves[np.argsort(-weights[leaves], kind="stable")][:_LEAVES]
            nodes |= {f"{twig}-{row}": (_title(catalog, row), twig, float(weights[row])) for row in best.tolist()}
    labels, parents, values = (list(column) for column in zip(*nodes.values(), strict=True))
    figure = Figure(
        Treemap(
            ids=list(nodes),
            labels=labels,
            parents=parents,
            values=values,
            branchvalues="remainder",
            maxdepth=3,
            marker={"colors": [int(name.split("-")[0]) % len(_TREE) for name in nodes], "colorscale": _TREE},
            hovertemplate="%{label}<extra></extra>",
        )
    )
    return _dressed(figure, 620)


_TREE = [[0.0, "#c9dcef"], [0.25, "#f3dfc1"], [0.5, "#d5e8d4"], [0.75, "#e6d5ea"], [1.0, "#b7cfe4"]]


def _largest(codes: NDArray[np.int32], weights: NDArray[np.float64], count: int) -> Sequence[int]:
    """Return the codes of most weight."""
    found, inverse = np.unique(codes, return_inverse=True)
    mass = np.bincount(inverse, weights=weights)
    largest: list[int] = found[np.argsort(-mass, kind="stable")[:count]].tolist()
    return largest


def _title(catalog: Catalog, row: int) -> str:
    return html.escape((catalog.titles[row] or catalog.item_ids[row])[:60])


def _residuals(residual: Mapping[str, Any]) -> "Figure":
    from plotly.graph_objects import Bar, Figure

    edges = np.array(residual["edges"])
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    figure = Figure()
    for name, colour in (("fitted", _MAIN), ("new", _OTHER)):
        side = residual[name]
        if side is not None:
            share = (np.array(side["histogram"]) / max(1, side["n"])).tolist()
            label = f"{name}: {side['n']:,} items, mean {side['mean']:.3f}"
            figure.add_trace(Bar(x=centres, y=share, name=label, marker_color=colour, opacity=0.7))
    figure.update_layout(barmode="overlay", bargap=0.02)
    figure.update_xaxes(title="share of the squared length left over")
    figure.update_yaxes(title="share of the items", tickformat=".0%")
    return _dressed(figure, 360)


def _stability(stability: Mapping[str, Any]) -> "Figure":
    from plotly.graph_objects import Bar, Figure

    depths = [f"first {depth + 1}" for depth in range(len(stability["items"]))]
    figure = Figure(
        [
            Bar(x=depths, y=stability["items"], name="items", marker_color=_MAIN),
            Bar(x=depths, y=stability["traffic"], name="traffic", marker_color=_OTHER),
        ]
    )
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return _dressed(figure, 320)


def _prefix_bars(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    from plotly.graph_objects import Bar, Figure

    total = max(1, sum(row["items"] for row in rows))
    depths = [f"{row['depth']} codes" for row in rows]
    figure = Figure(
        [
            Bar(x=depths, y=[row["items"] / total for row in rows], name="items", marker_color=_MAIN),
            Bar(x=depths, y=[row["traffic"] for row in rows], name="traffic", marker_color=_OTHER),
        ]
    )
    figure.update_yaxes(tickformat=".0%")
    return _dressed(figure, 340)


def _information(matrix: Sequence[Sequence[float]]) -> "Figure":
    from plotly.graph_objects import Figure, Heatmap

    names = [f"slot {slot}" for slot in range(len(matrix))]
    figure = Figure(Heatmap(z=matrix, x=names, y=names, colorscale=_SCALE, zmin=0, zmax=1, texttemplate="%{z:.2f}"))
    return _dressed(figure, 420)


def _dressed(figure: "Figure", height: int) -> "Figure":
    figure.update_layout(
        height=height,
        template="plotly_white",
        font={"color": _INK, "size": 13},
        margin={"l": 50, "r": 20, "t": 40, "b": 45},
        legend={"orientation": "h", "y": 1.12},
    )
    return figure


def _draw(figure: "Figure") -> str:
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return drawn
