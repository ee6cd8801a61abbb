"""One bundle's life on one HTML page: what it is, why it was let through, who asked for it, how it fares.

It opens from disk without a network; links lead to the reports beside it. Names and sentences are data: they are
escaped wherever they stand.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sidrec.codebook.page import html_page
from sidrec.codebook.plots import INK, PALE
from sidrec.release import page_plots
from sidrec.release.page_plots import BAD, GOOD
from sidrec.release.row import LedgerRow
from sidrec.release.verdict import Verdict

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

AREAS = ("data", "features", "sid", "decoder", "outcome")
_WAIT = "#d97706"
_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .2rem; }}
p.note {{ color: #52606d; margin: .1rem 0 .6rem; max-width: 50rem; }} a {{ color: #2563a8; }}
.say {{ padding: .7rem 1rem; border-left: 5px solid {GOOD}; background: #f0faf4; margin: 1rem 0; }}
.say.bad {{ border-color: {BAD}; background: #fdf2f2; }} .say.wait {{ border-color: {_WAIT}; background: #fdf8ee; }}
table {{ border-collapse: collapse; margin: .6rem 0; }} td, th {{ padding: .25rem .8rem; text-align: left; }}
th {{ border-bottom: 2px solid {PALE}; font-weight: 600; }} td {{ vertical-align: top; }}
#verdict td:nth-child(5), #ledger td:nth-child(2), #effect td {{ white-space: nowrap; }}
b.ok, b.pass {{ color: {GOOD}; }} b.alarm, b.fail {{ color: {BAD}; }} b.warn, b.inconclusive {{ color: #b7791f; }}
b.insufficient {{ color: #8a5a8c; }}
"""
_KIND = {"pass": "", "fail": " bad", "inconclusive": " wait"}
_DECISION = {"ship": "", "don't": " bad", "hidden": " bad", "keep running": " wait"}


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that the page shows of one bundle."""

    bundle_id: str
    facts: Mapping[str, str]
    """What the bundle is, by name, in the order of the page."""
    verdict: Verdict | None
    rows: Sequence[LedgerRow]
    """The whole ledger."""
    health: Mapping[str, Any] | None = None
    """The codebook's health report."""
    drift: Sequence[Mapping[str, Any]] = ()
    """Weeks that the bundle served, oldest first: first_day, window, level, sentence, areas (level by area), link."""
    readout: Mapping[str, Any] | None = None
    """An experiment's read-out, as `sidrec ab readout --json` has it under `readout`."""
    simulated: bool = False
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses of `health` and `readout`, seen from the page."""


def release_page(release: Release, *, now: datetime) -> str:
    """Return the page; equal arguments give equal bytes.

    Raises:
        UsageError: Plotly is not installed.
    """
    return html_page(f"Release {release.bundle_id}", _parts(release, now), style=_STYLE)


def _parts(release: Release, now: datetime) -> Iterator[str]:
    if release.verdict is not None:
        yield _say(release.verdict.sentence, _KIND[release.verdict.result])
    else:
        yield _say("No verdict: this bundle is not in the registry.", " wait")
    yield f"<p id='now'>{html.escape(_now(release))}</p>"
    yield "<h2>What it is</h2>" + _table("facts", (), release.facts.items())
    if release.verdict is not None:
        yield from _verdict(release.verdict)
    yield from _ledger(release, now)
    if release.health is not None:
        yield from _health(release.health, release.links.get("health"))
    yield from _drift(release.drift)
    if release.readout is not None:
        yield from _readout(release)


def _now(release: Release) -> str:
    live = [row for row in release.rows if row.action == "live"]
    if not live:
        return "Nothing is live."
    newest = live[-1]
    share = sum(arm.share for arm in newest.revision.arms if arm.bundle.bundle_id == release.bundle_id)
    served = f"answers {share:.0%} of users" if share else "answers nobody"
    return f"Revision {newest.revision.revision} is live since {newest.time:%Y-%m-%d %H:%M} UTC; this bundle {served}."


def _verdict(verdict: Verdict) -> Iterator[str]:
    yield "<h2>Why it was judged so</h2>"
    against = html.escape(f"the floor {verdict.floor} and the champion {verdict.champion or 'none'}")
    signed = f"{verdict.created_at:%Y-%m-%d %H:%M} UTC, good until {verdict.expires_at:%Y-%m-%d}"
    yield f"<p class='note'>Signed {signed}; against {against}.</p>"
    rows = (
        (
            gate.gate,
            gate.name,
            _word(gate.result),
            f"{gate.observed:.4f}",
            "" if gate.interval is None else f"{gate.interval[0]:+.4f} … {gate.interval[1]:+.4f}",
            f"{gate.threshold:g}",
            f"{gate.n:,}",
            gate.sentence,
        )
        for gate in verdict.gates
    )
    yield _table("verdict", ("gate", "check", "result", "observed", "95 %", "limit", "n", ""), rows)
    if any(gate.interval is not None for gate in verdict.gates):
        yield _drawn(page_plots.gates(verdict.gates), "gates")
    metrics = (
        (rows_of, f"{values.get('ndcg@10', float('nan')):.4f}", f"{values.get('recall@10', float('nan')):.4f}")
        for rows_of, values in verdict.metrics.items()
    )
    yield _table("metrics", ("rows", "NDCG@10", "Recall@10"), metrics)


def _ledger(release: Release, now: datetime) -> Iterator[str]:
    own = [row for row in release.rows if release.bundle_id in {ref.bundle_id for ref in row.revision.bundles}]
    yield "<h2>Who asked for it</h2>"
    if not own:
        yield "<p class='note'>Nobody has: the ledger does not name it.</p>"
        return
    rows = (
        (
            str(row.seq),
            f"{row.time:%Y-%m-%d %H:%M:%S}",
            row.action,
            str(row.revision.revision),
            ", ".join(f"{arm.name} {arm.share:.0%}" for arm in row.revision.arms),
            row.who + (f" + {row.second_approver}" if row.second_approver else ""),
            row.why,
        )
        for row in own
    )
    yield _table("ledger", ("row", "time (UTC)", "action", "revision", "arms", "who", "why"), rows)
    yield _drawn(page_plots.shares(release.rows, release.bundle_id, now), "shares")


def _health(report: Mapping[str, Any], link: str | None) -> Iterator[str]:
    alarm = report["alarm"]
    word = "slot" if report["mutual_information"] is not None else "level"
    yield "<h2>Its semantic IDs</h2>"
    yield _say(f"{alarm['sentence']}.", " bad" if alarm["raised"] else "")
    views = {name: view for name, view in report["views"].items() if "absent" not in view}
    rows = (
        (
            str(level),
            name,
            f"{view[level]['utilisation']:.1%}",
            str(view[level]["dead_codes"]),
            f"{view[level]['perplexity']:.1f}",
            f"{view[level]['normalised_entropy']:.3f}",
        )
        for level in range(len(views["catalogue"]))
        for name, view in views.items()
    )
    yield _table("health", (word, "", "used", "dead codes", "perplexity", "normalised entropy"), rows)
    yield _drawn(page_plots.usage(views, word), "usage")
    if link:
        yield f"<p><a href='{html.escape(link, quote=True)}'>Every figure of the codebook</a></p>"


def _drift(weeks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>How its traffic fares</h2>"
    if not weeks:
        yield "<p class='note'>No drift report has it yet; next: sidrec drift report.</p>"
        return
    yield "<p class='note'>Each week's worst level by area; the links lead to the reports.</p>"
    yield _drawn(page_plots.weeks(weeks, AREAS), "weeks")
    rows = (
        (
            _Markup(f"<a href='{html.escape(week['link'], quote=True)}'>{html.escape(week['window'])}</a>"),
            _word(week["level"]),
            week["sentence"],
        )
        for week in weeks
    )
    yield _table("drift", ("week", "level", ""), rows)


def _readout(release: Release) -> Iterator[str]:
    found = release.readout
    assert found is not None
    decision, primary = found["decision"], found["primary"]
    made_up = "Simulation: " if release.simulated else ""
    named = f"{made_up}{html.escape(found['experiment'])}, {found['days']:.3g} days"
    yield f"<h2>Its experiment</h2><p class='note'>{named}.</p>"
    yield _say(decision["sentence"], _DECISION[decision["verdict"]])
    if primary is not None:
        low, high = primary["always_valid"]
        value = (
            primary["metric"],
            f"{primary['control']:.4g}",
            f"{primary['treatment']:.4g}",
            f"{primary['difference']:+.4g}",
            f"{low:+.4g} … {high:+.4g}",
            f"{primary['users']:,}",
        )
        yield _table("effect", ("metric", "control", "treatment", "difference", "95 %, every look", "users"), [value])
    if link := release.links.get("readout"):
        yield f"<p><a href='{html.escape(link, quote=True)}'>The whole read-out</a></p>"


class _Markup(str):
    """Text that is HTML already."""


def _word(value: str) -> _Markup:
    return _Markup(f"<b class='{html.escape(value, quote=True)}'>{html.escape(value)}</b>")


def _say(sentence: str, kind: str) -> str:
    return f"<div class='say{kind}'>{html.escape(sentence)}</div>"


def _table(name: str, heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]] | Any) -> str:
    top = "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>" if heads else ""
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table id='{name}'>{top}{body}</table>"


def _cell(value: str) -> str:
    return value if isinstance(value, _Markup) else html.escape(value)


def _drawn(figure: "Figure", name: str) -> str:
    """Return a plot's own markup; the name is its id, so equal pages are equal byte by byte."""
    config = {"displayModeBar": False, "responsive": True}
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{name}")
    return drawn
