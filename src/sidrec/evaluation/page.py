"""The evaluation report as Markdown, for a person: verdict of the gates first, then the table beside every floor."""

from collections.abc import Iterator, Mapping
from typing import Any

from sidrec.evaluation.slices import SLICES

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "hr@10", "crecall@10")
TITLES = {"all": "All items", "novel": "Novel items only"}


def markdown(report: Mapping[str, Any]) -> str:
    """Return the page of a report made by `build_report`."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    rows, targets = report["rows"], report["targets"]
    yield f"# Evaluation of {report['bundle_id']} ({report['kind']})"
    yield ""
    yield (
        f"Protocol {report['protocol']}, window {report['window'][0]} to {report['window'][1]}, learnt from baskets to "
        f"{report['catalogue_date']}. {rows['all']:,} rows with {targets['all']:,} targets; novel-only "
        f"{rows['novel']:,} rows with {targets['novel']:,}. {report['cold_users']} users whose first basket lies in "
        f"the window are not scored. Catalogue of {report['catalogue_items']:,} items; "
        f"{report['targets_outside_catalogue']['all']} targets outside it count as misses."
    )
    yield ""
    yield (
        f"Beam width {report['beam_width']}, lists of {report['list_length']}; a rank that the beam does not fill is a "
        f"miss ({report['short_lists']['all']} short lists on all items, {report['short_lists']['novel']} on novel). "
        f"All-items requests hold the newest {report['history_cap']} events, as serving sends them; novel-only "
        "requests and floors hold the whole history, since novel means not in it."
    )
    yield ""
    yield "## Gates"
    yield ""
    for gate in report["gates"]:
        yield f"- **{gate['result']}** `{gate['name']}`: {gate['sentence']}"
    yield ""
    for kind, distance in report["distances"].items():
        low, high = distance["interval"]
        yield (
            f"- Distance to {distance['floor']} on {TITLES[kind].lower()}, NDCG@10: {distance['mean']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}] ({distance['candidate']:.4f} against {distance['reference']:.4f})"
        )
    for power in report["power"].values():
        yield f"- {power['sentence']}"
    for kind, title in TITLES.items():
        yield from _metric_table(report, kind, title)
    for kind, title in TITLES.items():
        yield from _slice_table(report, kind, title)
    for kind, title in TITLES.items():
        yield from _coverage_table(report, kind, title)


def _metric_table(report: Mapping[str, Any], kind: str, title: str) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    best = report["max_recall"][kind]
    yield "Largest possible recall: " + ", ".join(f"{name} {value:.3f}" for name, value in best.items()) + "."
    yield ""
    yield "| model | " + " | ".join(COLUMNS) + " | bundle minus it, NDCG@10 |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    yield _metric_row("**bundle**", report["metrics"][kind], report["intervals"][kind], "")
    others = dict(report["floors"])
    intervals = dict(report["floor_intervals"])
    if report["champion"]:
        others["champion"] = report["champion_metrics"]
        intervals["champion"] = report["champion_intervals"]
    for name, metrics in others.items():
        difference = report["differences"][name][kind]
        low, high = difference["interval"]
        shown = f"{difference['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"
        yield _metric_row(name, metrics[kind], intervals[name][kind], shown)


def _metric_row(name: str, metrics: Mapping[str, float], intervals: Mapping[str, Any], last: str) -> str:
    cells = [f"{metrics[column]:.4f} [{intervals[column][0]:.4f}, {intervals[column][1]:.4f}]" for column in COLUMNS]
    return f"| {name} | " + " | ".join(cells) + f" | {last} |"


def _slice_table(report: Mapping[str, Any], kind: str, title: str) -> Iterator[str]:
    models = list(report["slices"])
    yield ""
    yield f"## Slices, {title.lower()}, NDCG@10"
    yield ""
    yield "| slice | rows | targets | " + " | ".join(models) + " |"
    yield "|---" * (len(models) + 3) + "|"
    for name, meaning in SLICES.items():
        first = report["slices"][models[0]][kind][name]
        cells = " | ".join(f"{report['slices'][model][kind][name]['ndcg@10']:.4f}" for model in models)
        yield f"| {name}: {meaning} | {first['rows']:,} | {first['targets']:,} | {cells} |"


def _coverage_table(report: Mapping[str, Any], kind: str, title: str) -> Iterator[str]:
    yield ""
    yield f"## Coverage and popularity, {title.lower()}, first 10 places"
    yield ""
    yield "| lists of | distinct items | coverage | Gini | share to the head | mean popularity |"
    yield "|---|---|---|---|---|---|"
    for name, value in report["coverage"][kind].items():
        yield (
            f"| {name} | {value['distinct_items']:,} | {value['coverage']:.3f} | {value['gini']:.3f} | "
            f"{value['head_share']:.3f} | {value['mean_popularity']:.1f} |"
        )
