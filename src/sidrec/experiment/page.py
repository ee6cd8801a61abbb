"""A read-out as one HTML page that opens from disk without a network, in the order in which it should be read.

Where the trust box is red only the sentence that says why stands below it. Names of arms, metrics and slices are data:
they are escaped.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidrec.codebook.page import html_page
from sidrec.codebook.plots import INK, OTHER, PALE
from sidrec.experiment import plots
from sidrec.experiment.effect import Effect
from sidrec.experiment.plan import Plan
from sidrec.experiment.plots import Line
from sidrec.experiment.readout import Readout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .2rem; }}
p.note {{ color: #52606d; margin: .1rem 0 .6rem; max-width: 50rem; }}
.say {{ padding: .7rem 1rem; border-left: 5px solid {plots.GOOD}; background: #f0faf4; margin: 1rem 0; }}
.say.bad {{ border-color: {plots.BAD}; background: #fdf2f2; }}
.say.wait {{ border-color: #d97706; background: #fdf8ee; }}
table {{ border-collapse: collapse; margin: .6rem 0; }} td, th {{ padding: .25rem .8rem; text-align: right; }}
th {{ border-bottom: 2px solid {PALE}; font-weight: 600; }}
.text, td:first-child, th:first-child {{ text-align: left; }}
b.green, b.pass {{ color: {plots.GOOD}; }} b.red, b.fail {{ color: {plots.BAD}; }}
b.unmeasured, b.inconclusive {{ color: #b7791f; }}
"""
_KIND = {"ship": "", "don't": " bad", "hidden": " bad", "keep running": " wait"}
SIMULATED = "Simulation: these users and this effect are made up; nothing here is about a model."


def readout_page(found: Readout, plan: Plan, *, days: str, codes: Sequence[Mapping[str, Any]], simulated: bool) -> str:
    """Return the page; equal arguments give equal bytes.

    Args:
        days: the phase's days, as the page shows them.
        codes: one row an arm, as `monitoring.arm_codes` counts them; shown only where the result is.

    Raises:
        UsageError: Plotly is not installed.
    """
    title = f"{'Simulation: ' if simulated else ''}{found.experiment}, {days}"
    return html_page(title, _parts(found, plan, codes, simulated), style=_STYLE)


def _parts(found: Readout, plan: Plan, codes: Sequence[Mapping[str, Any]], simulated: bool) -> Iterator[str]:
    if simulated:
        yield f"<div class='say wait'>{SIMULATED}</div>"
    yield "<h2>Can the traffic be trusted?</h2><p class='note'>One red light hides every result.</p>"
    yield _table(
        ("check", "light", "seen"),
        ((check.name, _word(check.light), check.sentence) for check in found.trust),
    )
    if found.primary is not None:
        yield from _result(found, found.primary, plan, codes)
    kind, sentence = _KIND[found.decision.verdict], html.escape(found.decision.sentence)
    yield f"<h2>What to do</h2><div class='say{kind}'>{sentence}</div>"


def _result(found: Readout, primary: Effect, plan: Plan, codes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _effect(primary, plan)
    if found.guardrails:
        yield from _guardrails(found)
    if found.slices:
        yield from _slices(found)
    if codes:
        yield from _codes(codes)
    if found.attribution is not None:
        parts = (found.attribution.codebook, found.attribution.model, found.attribution.interaction)
        yield _plot(
            "Codebook or model",
            html.escape(found.attribution.sentence),
            plots.intervals([Line(one.name, one.change, one.always_valid) for one in parts], {"": 0.0}, percent=False),
            "attribution",
        )


def _effect(primary: Effect, plan: Plan) -> Iterator[str]:
    note = (
        "Every look: read it daily and stop when you like. One look: true only at a date fixed before; never for "
        f"peeking. CUPED took away {primary.variance_reduction:.1%} of the variance. {primary.users:,} users; "
        f"{html.escape(plan.control)} {primary.control:.4g}, {html.escape(plan.treatment)} {primary.treatment:.4g}."
    )
    sign = 1 if primary.better == "up" else -1
    if primary.relative is None or primary.relative_always_valid is None or primary.relative_interval is None:
        lines = [
            Line("every look", primary.difference, primary.always_valid),
            Line("one look", primary.difference, primary.interval, OTHER),
        ]
        figure = plots.intervals(lines, {"no change": 0.0}, percent=False)
    else:
        lines = [
            Line("every look", primary.relative, primary.relative_always_valid),
            Line("one look", primary.relative, primary.relative_interval, OTHER),
        ]
        marks = {"no change": 0.0, "worth shipping": sign * plan.minimum_effect}
        figure = plots.intervals(lines, marks, percent=True)
    yield _plot(f"Effect on {html.escape(primary.metric)}", note, figure, "effect")


def _guardrails(found: Readout) -> Iterator[str]:
    yield "<h2>Guardrails</h2><p class='note'>Pass: the harm is surely below the margin.</p>"
    rows = ((one.effect.metric, _word(one.result), one.sentence) for one in found.guardrails)
    yield _table(("guardrail", "result", "seen"), rows)
    colours = {"pass": plots.GOOD, "fail": plots.BAD, "inconclusive": OTHER}
    lines = [
        Line(f"{one.effect.metric} (margin {one.margin:.1%})", sum(gain) / 2, gain, colours[one.result])
        for one in found.guardrails
        if (gain := one.effect.gain) is not None
    ]
    if lines:
        yield "<p class='note'>Change in the good direction, at every look; the dots are the intervals' middles.</p>"
        yield _drawn(plots.intervals(lines, {"no change": 0.0}, percent=True), "guardrails")


def _slices(found: Readout) -> Iterator[str]:
    yield "<h2>Slices</h2><p class='note'>Corrected for their number; a slice that is too small shows nothing.</p>"
    rows = (
        (f"{one.column} = {one.value}", f"{one.users:,}", _p(one.adjusted_p), "yes" if one.differs else "no")
        for one in found.slices
    )
    yield _table(("slice", "users", "corrected p", "an effect is shown"), rows)
    lines = [
        Line(f"{one.column} = {one.value}", one.effect.relative, one.effect.relative_always_valid)
        for one in found.slices
        if one.effect and one.effect.relative is not None and one.effect.relative_always_valid is not None
    ]
    if lines:
        yield _drawn(plots.intervals(lines, {"no change": 0.0}, percent=True), "slices")


def _codes(codes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _plot(
        "Semantic IDs of each arm",
        "Perplexity: how many codes of a level are used in effect, in what was served and in what was taken from it. "
        "Taken far below served: much of what is shown is not wanted.",
        plots.code_bars(codes),
        "codes",
    )
    heads = ("arm", "bundle", "answers", "cold", "degraded", "level", "traffic", "used", "of", "entropy", "largest")
    rows = (
        (
            row["arm"],
            row["bundle_id"],
            f"{row['requests']:,}",
            f"{row['cold_share']:.1%}",
            f"{row['degraded_share']:.1%}",
            str(level["level"]),
            "taken" if level["traffic"] == "bought" else level["traffic"],
            str(level["used"]),
            "unknown" if level["size"] is None else str(level["size"]),
            f"{level['entropy']:.2f} bits",
            f"{level['largest_share']:.1%}",
        )
        for row in codes
        for level in row["levels"]
    )
    yield _table(heads, rows)
    searches = [
        (row["arm"], seen["name"], f"{seen['mean']:.3g}", f"{seen['entropy']:.2f}", f"{seen['requests']:,}")
        for row in codes
        for seen in row["search"]
    ]
    if searches:
        yield "<p class='note'>What the searches say of themselves.</p>"
        yield _table(("arm", "number", "mean", "entropy (bits)", "answers"), searches)


class _Markup(str):
    """Text that is HTML already."""


def _word(value: str) -> _Markup:
    return _Markup(f"<b class='{value}'>{value}</b>")


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th class='text'>{head}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td class='text'>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell(value: str) -> str:
    return value if isinstance(value, _Markup) else html.escape(value)


def _p(value: float | None) -> str:
    return "too few users" if value is None else f"{value:.2g}"


def _plot(heading: str, note: str, figure: "Figure", name: str) -> str:
    return f"<h2>{heading}</h2><p class='note'>{note}</p>{_drawn(figure, name)}"


def _drawn(figure: "Figure", name: str) -> str:
    """Return a plot's own markup; the name is its id, so equal pages are equal byte by byte."""
    config = {"displayModeBar": False, "responsive": True}
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    return drawn
