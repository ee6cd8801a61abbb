"""The autumn of Online Retail II as monitoring saw it, week by week, from the logs that `sidrec replay` left behind.

Purchases and answers are those of the real serving path; reports are those of `sidrec drift report`. The fit period
ends on August 31, and no event of December 2010 is read (the evaluation protocol, §5).

`python -m benchmarks.drift_windows --bundle FOLDER --baskets FILE --json FILE --plots FOLDER`
"""

import argparse
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from monitoring import decide, report, windows
from monitoring.windows import Window
from sidrec import files, home
from sidrec.bundle import open_bundle
from sidrec.codebook.plots import INK, MAIN, OTHER
from sidrec.recipe import Recipe
from sidrec.release.provenance import git_sha

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

AUTUMN = "2009-12-01..2010-08-31"
CONTROL = "2009-12-01..2010-05-31"
LAST_DAY = date(2010, 11, 30)
FIRST_CODED = date(2010, 9, 1)
COLOURS = {"insufficient": "#9aa5b1", "ok": "#2f855a", "warn": OTHER, "alarm": "#b91c1c"}
WIDTH, HEIGHT = 1000, 420


def mondays(first: date, last: date) -> list[date]:
    """Return the Mondays from `first` whose weeks end by `last`."""
    count = ((last - first).days + 1) // 7
    return [first + timedelta(weeks=week) for week in range(count)]


def measured(sources: report.Sources, recipe: Recipe) -> dict[str, Any]:
    """Return the rows of both tables, the autumn and the control, and the share of purchases that have an ID."""
    return {
        "commit": git_sha(),
        "autumn": [_row(sources, recipe, monday, AUTUMN) for monday in mondays(date(2010, 8, 30), LAST_DAY)],
        "june": [_row(sources, recipe, monday, CONTROL) for monday in mondays(date(2010, 6, 7), date(2010, 7, 4))],
        "coded": coded_shares(pl.scan_parquet(sources.baskets)),
    }


def _row(sources: report.Sources, recipe: Recipe, monday: date, reference: str) -> dict[str, Any]:
    built = report.build(sources, recipe, week=monday, reference=reference)
    assert built is not None
    assert built.item_drift.statistics is not None
    # The rule of purchases: what answers do in a replay says nothing of the season.
    suspects = [one for one in built.verdict.suspects if one.area == "data"]
    return {
        "monday": str(monday),
        "events": built.item_drift.events,
        "requests": built.attribution.requests,
        "js": built.item_drift.statistics.js,
        "ratio": built.item_drift.statistics.ratio,
        "psi": built.item_drift.statistics.psi,
        "unseen_share": built.item_drift.statistics.unseen_share,
        "level": built.item_drift.level,
        "cause": suspects[0].cause if suspects else None,
        "items": list(suspects[0].items) if suspects else [],
        "others": [finding.key for finding in built.verdict.findings if finding.level in ("warn", "alarm")
                   and finding.area != "data"],
    }  # fmt: skip


def coded_shares(baskets: pl.LazyFrame) -> list[dict[str, Any]]:
    """Return, by week, the share of purchases whose item has a semantic ID: of the fit, and with an append a month."""
    purchases = windows.basket_purchases(baskets).filter(pl.col("day") <= LAST_DAY).collect()
    first_sold = dict(purchases.group_by("item_id").agg(pl.col("day").min()).iter_rows())

    def known(before: date) -> frozenset[str]:
        return frozenset(item for item, day in first_sold.items() if day < before)

    rows = []
    for monday in mondays(date(2010, 8, 30), LAST_DAY):
        week = Window(monday, monday + timedelta(weeks=1)).days(purchases.lazy()).group_by("item_id").len().collect()
        counts = dict(week.iter_rows())
        appended = known(max(FIRST_CODED, monday.replace(day=1)))
        rows.append(
            {
                "monday": str(monday),
                "fit": decide.coded_share(counts, known(FIRST_CODED)),
                "append": decide.coded_share(counts, appended),
            }
        )
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of weeks as the documentation prints it."""
    names = ("week of", "purchases", "JS", "ratio", "PSI", "unseen", "level", "cause")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        level = f"**{row['level']}**" if row["level"] in ("warn", "alarm") else row["level"]
        lines.append(
            f"| {row['monday']} | {row['events']:,} | {row['js']:.3f} | {row['ratio']:.1f} | {row['psi']:.3f} | "
            f"{row['unseen_share']:.1%} | {level} | {row['cause'] or ''} |"
        )
    return "\n".join(lines)


def drift_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Return PSI and the ratio by week, coloured by level, beside their limits."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=["PSI of items bought (log)", "JS over its noise floor"])
    for column, (name, warn, alarm) in enumerate((("psi", 0.2, 0.25), ("ratio", 2.0, 2.5)), start=1):
        marker = {"color": [COLOURS[row["level"]] for row in rows], "size": 11}
        line = {"color": INK, "width": 1}
        days, values = [row["monday"] for row in rows], [row[name] for row in rows]
        figure.add_trace(Scatter(x=days, y=values, mode="lines+markers", marker=marker, line=line), row=1, col=column)
        figure.add_hline(warn, line={"dash": "dot", "color": COLOURS["warn"]}, row=1, col=column)
        figure.add_hline(alarm, line={"dash": "dot", "color": COLOURS["alarm"]}, row=1, col=column)
    figure.update_yaxes(type="log", dtick=1, row=1, col=1)
    for name, colour in COLOURS.items():
        figure.add_trace(Scatter(x=[None], y=[None], mode="markers", name=name, marker={"color": colour, "size": 11}))
    return _styled(figure)


def coded_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Return the share of purchases that have an ID by week: as fitted, and with an append a month."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for name, label, colour in (
        ("fit", "codebook of August", OTHER),
        ("append", "new items appended each month", MAIN),
    ):
        days, values = [row["monday"] for row in rows], [row[name] for row in rows]
        figure.add_trace(Scatter(x=days, y=values, mode="lines+markers", name=label, line={"color": colour}))
    figure.update_yaxes(tickformat=".0%", title="purchases whose item has a semantic ID")
    return _styled(figure)


def _styled(figure: "Figure") -> "Figure":
    for trace in figure.data:
        trace.showlegend = trace.name is not None
    return figure.update_layout(
        width=WIDTH, height=HEIGHT, template="plotly_white", font={"color": INK, "size": 13}, margin={"t": 50, "b": 40},
        legend={"orientation": "h", "y": -0.15},
    )  # fmt: skip


def write_png(figure: "Figure", path: Path) -> None:
    """Draw a figure with headless Chromium, which says nothing where it cannot write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        body = figure.to_html(include_plotlyjs=True, config={"displayModeBar": False, "staticPlot": True})
        page.write_text(body.replace("<body>", '<body style="margin:0">'))
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--virtual-time-budget=8000",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={path.absolute()}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """Measure the weeks, and write what the documentation shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle that served the replay")
    parser.add_argument("--baskets", type=Path, required=True, help="basket table of its run")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plots", type=Path, required=True)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle, verify=False)
    sources = report.Sources(home.exposures_dir(), home.outcomes_dir(), options.baskets, bundle.folder)
    found = measured(sources, bundle.recipe)
    files.write_json_atomic(options.json, found)
    write_png(drift_figure(found["autumn"]), options.plots / "drift-autumn.png")
    write_png(coded_figure(found["coded"]), options.plots / "drift-coded.png")
    for name in ("autumn", "june"):
        print(f"{name}\n\n{markdown(found[name])}\n")


if __name__ == "__main__":
    main()
