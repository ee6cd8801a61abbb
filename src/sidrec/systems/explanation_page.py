"""What pages of explanations share, whatever the system: their look, labels that are text, plots with names."""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidrec.codebook.plots import INK, PALE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }}
h2 {{ font-size: 1.3rem; margin: 3rem 0 .4rem; padding-top: .6rem; border-top: 2px solid {PALE}; }}
h3 {{ font-size: 1.05rem; margin: 1.6rem 0 .1rem; }}
p {{ margin: .2rem 0; }} p.note {{ color: #52606d; max-width: 50rem; }}
"""
_CUT = 46
# Pixels of the column that labels stand in.
_LABELS = 390


def label(lines: Iterable[str]) -> str:
    """Return short lines below one another; text, never markup."""
    cut = (line if len(line) <= _CUT else f"{line[: _CUT - 1]}…" for line in lines)
    return "<br>".join(map(html.escape, cut))


def laid_out(figure: "Figure", *, height: int, top: int = 8) -> "Figure":
    """Return a plot of bars with room for their labels, `height` pixels high."""
    return figure.update_layout(
        height=height,
        template="plotly_white",
        showlegend=False,
        font={"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": _LABELS, "r": 20, "t": top, "b": 8},
    )


def drawn(figure: "Figure", name: str) -> str:
    """Return a plot; `name` is its own, so equal pages are equal byte by byte."""
    config = {"displayModeBar": False, "responsive": True}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    return text
