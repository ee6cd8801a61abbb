"""Reasoning paths as one HTML page that opens from disk without a network.

Titles of items, names of categories and ids of users are data: they are escaped wherever they stand. Plotly is imported
only to draw.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sidrec.codebook.page import html_page
from sidrec.codebook.plots import MAIN, OTHER
from sidrec.systems.explanation_page import STYLE, drawn, label, laid_out
from sidrec.systems.reg4rec.reasons import ExplainedItem, Explanation, NamedCategory, PathStep, said_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = f"""{STYLE}
b.same {{ color: {MAIN}; }} b.other {{ color: {OTHER}; }} b.repeat {{ color: #2f855a; }}
"""
# Pixels: of a step's bar with its titles, and of a plot's frame.
_BAR, _FRAME = 52, 24


def paths_page(explanations: Mapping[str, Explanation], *, title: str) -> str:
    """Return the page of explanations by user.

    Raises:
        UsageError: Plotly is not installed.
    """
    return html_page(title, _parts(explanations), style=_STYLE)


def _parts(explanations: Mapping[str, Explanation]) -> Iterator[str]:
    yield (
        "<p class='note'>An item is reached by its codes, one slot after the other, the surest first: from top to "
        "bottom. A bar is how sure the slot was. With each code the recommender names a category, shown by its most "
        "popular items; <b class='same'>blue</b> names that of the step before, <b class='other'>orange</b> another "
        "one. Paths that change their mind often are pruned, where the recipe prunes.</p>"
    )
    for number, (user, explanation) in enumerate(explanations.items()):
        yield f"<h2>{html.escape(user)}</h2>"
        yield f"<p><b>Bought lately:</b> {html.escape('; '.join(explanation.history))}</p>"
        yield f"<p class='note'>In this search {html.escape(explanation.pruning)}.</p>"
        if not explanation.items:
            yield "<p class='note'>Nothing is left to recommend.</p>"
        for rank, item in enumerate(explanation.items, start=1):
            yield from _item_parts(rank, item, f"u{number}-i{rank}")


def _item_parts(rank: int, item: ExplainedItem, name: str) -> Iterator[str]:
    yield f"<h3>{rank}. {html.escape(item.title)}</h3>"
    bought = ", <b class='repeat'>bought before: the repeat path counts too</b>" if item.path == "repeat" else ""
    agree = "" if item.consistency is None else f", {item.consistency:.0%} of its steps name the category before"
    yield f"<p>Item {html.escape(item.item_id)}, score {item.score:.2f}{bought}{agree}.</p>"
    yield drawn(path_figure(item.steps), name)


def path_figure(steps: Sequence[PathStep]) -> "Figure":
    """Return one bar a step, the first on top."""
    from plotly.graph_objects import Bar, Figure

    before: NamedCategory | None = None
    colours = []
    for step in steps:
        changed = step.named is not None and before is not None and step.named.category != before.category
        colours.append(OTHER if changed else MAIN)
        before = step.named
    places = list(range(len(steps)))
    figure = Figure(
        Bar(
            x=[1.0 if step.num_items == 1 else step.confidence for step in steps],
            y=places,
            orientation="h",
            marker_color=colours,
            text=[f"slot {step.slot}, code {step.code}: {said_of(step)}" for step in steps],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{text}<extra></extra>",
            width=0.62,
        )
    )
    figure.update_yaxes(tickvals=places, ticktext=[_label(step.named) for step in steps])
    figure.update_yaxes(range=[len(steps) - 0.5, -0.5], tickfont={"size": 11}, showgrid=False, zeroline=False)
    # Room for the text behind a bar of 100 %.
    figure.update_xaxes(range=[0, 2.2], showticklabels=False, showgrid=False, zeroline=False)
    return laid_out(figure, height=_BAR * len(steps) + _FRAME)


def _label(named: NamedCategory | None) -> str:
    """Return a category's name and titles as short lines; text, never markup."""
    if named is None:
        return ""
    head = named.name or f"category {named.category}"
    return label((head, *named.titles[:2]))
