"""A study as one table: every variant's means over seeds with intervals, and paired differences.

A row's value is its mean over seeds, and rows are resampled; the spread over seeds stands beside it.

Axes: `row` judged targets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec.errors import CheckFailedError
from sidrec.evaluation.bootstrap import Bootstrap
from sidrec.study.cell import cell_rows
from sidrec.study.config import StudyConfig

HEADLINE = "ndcg@10"
SHOWN = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
RESAMPLES = 1000
# Two-sided 5 % and 80 % power: the difference that this many rows would find four times out of five.
DETECTABLE = 1.96 + 0.84


def summarise(study: StudyConfig, cells: Sequence[Mapping[str, Any]], out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Return the study's table from the cells that are finished; a pair without both sides is left out.

    Raises:
        CheckFailedError: two cells judged different rows.
    """
    seeds: dict[str, list[int]] = {}
    for cell in cells:
        seeds.setdefault(cell["variant"], []).append(cell["seed"])
    kinds = list(cells[0]["rows"])
    table: dict[str, Any] = {"name": study.name, "target": study.target, "variants": {}, "differences": []}
    for kind in kinds:
        bootstrap, columns = _bootstrap(seeds, out, kind, seed)
        for variant, own in seeds.items():
            entry = table["variants"].setdefault(variant, {"seeds": own, "metrics": {}})
            entry["metrics"][kind] = {
                metric: {
                    "mean": float(columns[f"{variant}/{metric}"].mean()),
                    "interval": bootstrap.interval(f"{variant}/{metric}"),
                    "sd_over_seeds": _sd(cells, variant, kind, metric),
                }
                for metric in SHOWN
            }
        for candidate, reference in study.compare:
            if candidate in seeds and reference in seeds:
                table["differences"].append(_difference(seeds, out, candidate, reference, kind, seed))
    for cell in cells:
        entry = table["variants"][cell["variant"]]
        entry.setdefault("commits", []).append(cell["commit"])
        for name in ("fit_cpu_seconds", "parameters", "beam_width"):
            if name in cell:
                entry.setdefault(name, []).append(cell[name])
        if cell.get("probe"):
            entry.setdefault("probe", []).append(cell["probe"])
    return table


def markdown(table: Mapping[str, Any]) -> str:
    """Return the table for people: one row a variant and kind, then the differences."""
    lines = [
        f"Study `{table['name']}`, rows of `{table['target']}`. Intervals: 95 %, bootstrap over rows; ± is the "
        "standard deviation over seeds.",
        "",
        "| variant | rows | seeds | R@5 | R@10 | N@5 | N@10 | N@10 interval | CPU s a fit |",
        "|---" * 9 + "|",
    ]
    for variant, entry in table["variants"].items():
        for kind, metrics in entry["metrics"].items():
            cells = " | ".join(
                f"{metrics[name]['mean']:.4f}"
                + (f" ± {metrics[name]['sd_over_seeds']:.4f}" if metrics[name]["sd_over_seeds"] is not None else "")
                for name in SHOWN
            )
            low, high = metrics[HEADLINE]["interval"]
            seconds = entry.get("fit_cpu_seconds", [])
            lines.append(
                f"| {variant} | {kind} | {len(entry['seeds'])} | {cells} | [{low:.4f}, {high:.4f}] | "
                f"{np.median(seconds):.0f} |"
            )
    if table["differences"]:
        lines += ["", "| difference in N@10 | rows | mean | interval | by seed | detectable |", "|---" * 6 + "|"]
        for row in table["differences"]:
            low, high = row["interval"]
            by_seed = ", ".join(f"{value:+.4f}" for value in row["by_seed"])
            lines.append(
                f"| {row['candidate']} − {row['reference']} | {row['kind']} | {row['mean']:+.4f} | "
                f"[{low:+.4f}, {high:+.4f}] | {by_seed} | {row['detectable']:.4f} |"
            )
    return "\n".join(lines) + "\n"


def _bootstrap(
    seeds: Mapping[str, Sequence[int]], out: Path, kind: str, seed: int
) -> tuple[Bootstrap, dict[str, NDArray[np.float64]]]:
    columns: dict[str, NDArray[np.float64]] = {}
    rows = None
    for variant, own in seeds.items():
        tables = [cell_rows(out, variant, number).filter(pl.col("kind") == kind) for number in own]
        for table in tables:
            rows = table.height if rows is None else rows
            if table.height != rows:
                raise CheckFailedError(
                    f"{variant} judged {table.height} rows, others {rows}: cells of two protocols",
                    evidence=out,
                    next_step="remove the older cells and run the study again",
                )
        for metric in SHOWN:
            columns[f"{variant}/{metric}"] = np.mean([table[metric].to_numpy() for table in tables], axis=0)
    return Bootstrap(columns, resamples=RESAMPLES, seed=seed), columns


def _difference(
    seeds: Mapping[str, Sequence[int]], out: Path, candidate: str, reference: str, kind: str, seed: int
) -> dict[str, Any]:
    """Return candidate minus reference over the seeds that both have; a floor without a seed stands for each."""
    fixed = reference.startswith("floor_") and len(seeds[reference]) == 1
    both = [number for number in seeds[candidate] if fixed or number in seeds[reference]]
    ours = [_rows(out, candidate, number, kind) for number in both]
    theirs = [_rows(out, reference, seeds[reference][0] if fixed else number, kind) for number in both]
    if not both:
        ours, theirs = ([_rows(out, name, seeds[name][0], kind)] for name in (candidate, reference))
    columns = {candidate: np.mean(ours, axis=0), reference: np.mean(theirs, axis=0)}
    found = Bootstrap(columns, resamples=RESAMPLES, seed=seed).difference(candidate, reference)
    return {
        "candidate": candidate,
        "reference": reference,
        "kind": kind,
        "seeds": both,
        "mean": found.mean,
        "interval": found.interval,
        "by_seed": [float((own - other).mean()) for own, other in zip(ours, theirs, strict=True)],
        "detectable": DETECTABLE * found.row_sd / found.n**0.5,
    }


def _rows(out: Path, variant: str, seed: int, kind: str) -> NDArray[np.float64]:
    return cell_rows(out, variant, seed).filter(pl.col("kind") == kind)[HEADLINE].cast(pl.Float64).to_numpy()


def _sd(cells: Sequence[Mapping[str, Any]], variant: str, kind: str, metric: str) -> float | None:
    values = [cell["metrics"][kind][metric] for cell in cells if cell["variant"] == variant]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
