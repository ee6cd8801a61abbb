"""The drift report of ten million exposures: time, memory and size, in a process of its own.

`python -m benchmarks.monitoring ROWS` measures another size and judges nothing. Rows are made up: two arms, five weeks,
lists of ten items out of 4,000, in segments as the server writes them. The report reads the log once, so its time
grows with the rows and its memory and its pages do not.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import Row, bounded, report
from benchmarks.memory import peak_bytes
from sidrec import exposure, outcome
from sidrec.clock import DAY_S, day_start
from sidrec.errors import CheckFailedError
from sidrec.recipe import load_recipe

ROWS = 10_000_000
QUICK_ROWS = 20_000
SECONDS, BYTES, REPORT_BYTES = 60.0, 4e9, 2e6

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "pipelines" / "recipes" / "s2gr_retail.yaml"
MONDAY = date(2010, 11, 1)
WEEKS = 5
ITEMS, LEVELS, CODES, K = 4_000, 3, 256, 10
SEGMENT_ROWS = 2_000
BUNDLES = {"control": "b-aaaaaaaaaaaa", "treatment": "b-bbbbbbbbbbbb"}


def run(*, quick: bool) -> dict[str, Any]:
    """Return the report of one log of the full size, or of a small one that judges nothing."""
    return report(lambda: measured(QUICK_ROWS if quick else ROWS, judge=not quick))


def measured(rows: int, *, judge: bool) -> Iterator[Row]:
    """Yield seconds, peak memory and bytes of the report of so many exposures.

    Raises:
        CheckFailedError: the report did not count every row that it was given.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        written = write_log(work, rows)
        seen = _report_of(work)
    if seen["requests"] != written:
        raise CheckFailedError(f"the report counts {seen['requests']:,} requests, {written:,} were written")
    notes = f"{rows:,} exposures in segments of {SEGMENT_ROWS:,}, {seen['outcomes']:,} outcomes, one run"
    # The machine's threads: a report is made beside the server, not on one core of it.
    notes += f", {os.cpu_count()} threads"
    yield bounded(
        "seconds of the drift report", seen["seconds"], goal=SECONDS if judge else None, unit="s", notes=notes
    )
    memory = f"{notes}; the process's peak, imports included"
    yield bounded(
        "memory of the drift report", seen["peak"] / 1e9, goal=BYTES / 1e9 if judge else None, unit="GB", notes=memory
    )
    files = f"page, JSON, verdict, findings and run in the workspace; the page alone {seen['page'] / 1e6:.2f} MB"
    yield bounded(
        "size of the drift report",
        seen["bytes"] / 1e6,
        goal=REPORT_BYTES / 1e6 if judge else None,
        unit="MB",
        notes=files,
    )


def write_log(work: Path, rows: int) -> int:
    """Return how many exposures lie in `work` after writing their log, outcomes, bundles and baskets."""
    rng = np.random.default_rng(0)
    names = np.array([f"item-{number:05d}" for number in range(ITEMS)])
    codes = rng.integers(0, CODES, (ITEMS, LEVELS)).astype(np.int32)
    weights = 1 / np.arange(1, ITEMS + 1) ** 0.8
    weights /= weights.sum()
    for bundle_id in BUNDLES.values():
        target = work / bundle_id
        target.mkdir()
        pl.DataFrame(
            {"item_id": names, "codes": codes.tolist(), "popularity": (weights * 1e6).astype(np.int64)},
            schema_overrides={"codes": pl.List(pl.Int32)},
        ).write_parquet(target / "catalogue.parquet")
        (target / "manifest.json").write_text(json.dumps({"bundle_id": bundle_id}))
    _baskets(names, weights, rng).write_parquet(work / "baskets")
    # The last purchases, a minute after their requests, still belong to the last week.
    first, span = day_start(MONDAY - timedelta(weeks=WEEKS - 1)), WEEKS * 7 * DAY_S - 120
    folder = work / "home" / "exposures" / str(MONDAY)
    folder.mkdir(parents=True)
    bought: list[pl.DataFrame] = []
    for number, start in enumerate(range(0, rows, SEGMENT_ROWS)):
        count = min(SEGMENT_ROWS, rows - start)
        times = first + (np.arange(start, start + count) * span // rows)
        table, shown = _segment(start, times, names, codes, weights, rng)
        table.write_parquet(folder / f"{number:08d}.parquet", compression="zstd")
        bought.append(_purchases(table, shown, names, rng))
    target = work / "home" / "outcomes" / str(MONDAY)
    target.mkdir(parents=True)
    pl.concat(bought).write_parquet(target / "0.parquet")
    return rows


def _segment(
    start: int, times: "np.ndarray[Any, Any]", names: "np.ndarray[Any, Any]", codes: "np.ndarray[Any, Any]",
    weights: "np.ndarray[Any, Any]", rng: np.random.Generator,
) -> tuple[pl.DataFrame, "np.ndarray[Any, Any]"]:  # fmt: skip
    count = len(times)
    shown = rng.choice(ITEMS, (count, K), p=weights)
    users = rng.integers(0, 200_000, count)
    arms = users % 2
    length = rng.poisson(20, count).astype(np.int32)
    lists = pl.Series(codes[shown].reshape(count * K, LEVELS)).reshape((count, K, LEVELS))
    columns = {
        "schema_version": pl.Series(np.full(count, exposure.SCHEMA_VERSION)),
        "request_id": pl.Series([f"request-{number:012d}" for number in range(start, start + count)]),
        "user_id": pl.Series(users).cast(pl.String),
        "wall_time_ms": pl.Series(times * 1000),
        "event_time": pl.Series(times),
        "arm": pl.Series(np.where(arms == 0, *BUNDLES)),
        "bundle_id": pl.Series(np.where(arms == 0, *BUNDLES.values())),
        "revision": pl.Series(np.ones(count)),
        "experiment": pl.Series([None] * count),
        "surface": pl.Series(np.where(users % 3 == 0, "home", "basket")),
        "k": pl.Series(np.full(count, K)),
        "exclude_seen": pl.Series(np.zeros(count, dtype=bool)),
        "history_source": pl.Series(np.where(length > 0, "store", "none")),
        "history_length": pl.Series(length),
        "known_items": pl.Series((length * 0.9).astype(np.int32)),
        "item_ids": pl.Series(names[shown.ravel()]).reshape((count, K)).arr.to_list(),
        "semantic_ids": lists.cast(pl.List(pl.List(pl.Int32))),
        "scores": pl.Series(-np.sort(rng.exponential(3, (count, K)).astype(np.float32))).arr.to_list(),
        "source": pl.Series(np.where(length > 0, "model", "cold")),
        "feature_age_s": pl.Series(rng.exponential(20 * DAY_S, count).astype(np.int64)),
        "latency_ms": pl.Series(rng.gamma(4, 2, count)),
        "beam_width": pl.Series(np.full(count, 50)),
        "valid_beams": pl.Series(np.full(count, 50)),
        "group_size": pl.Series(np.ones(count)),
        "stats": pl.Series(
            [[{"name": "repeat_share", "value": float(value)}] for value in rng.integers(0, 4, count) / 10]
        ),
    }
    table = pl.DataFrame(columns).cast({name: kind for name, kind in exposure.SCHEMA.items() if name in columns})
    # Columns of the log that monitoring does not read are null.
    return pl.concat([exposure.SCHEMA.to_frame(), table], how="diagonal"), shown


def _purchases(
    table: pl.DataFrame, shown: "np.ndarray[Any, Any]", names: "np.ndarray[Any, Any]", rng: np.random.Generator
) -> pl.DataFrame:
    """Return purchases after one request in twenty: of an item shown, or of any other."""
    rows = np.flatnonzero(rng.random(len(table)) < 0.05)
    took = np.where(rng.random(len(rows)) < 0.5, shown[rows, 0], rng.integers(0, ITEMS, len(rows)))
    chosen = table[rows]
    columns = {
        "schema_version": pl.Series(np.full(len(rows), outcome.SCHEMA_VERSION)),
        "event_id": chosen["request_id"] + "/bought",
        "user_id": chosen["user_id"],
        "item_id": pl.Series(names[took]),
        "event_type": pl.Series(["purchase"] * len(rows)),
        "event_time": chosen["event_time"] + 60,
        "request_id": pl.Series([None] * len(rows)),
    }
    return pl.DataFrame(columns).cast(outcome.SCHEMA)


def _baskets(names: "np.ndarray[Any, Any]", weights: "np.ndarray[Any, Any]", rng: np.random.Generator) -> pl.DataFrame:
    bought = names[rng.choice(ITEMS, (20_000, 10), p=weights)]
    return pl.DataFrame(
        {
            "user_id": [str(number) for number in range(len(bought))],
            "day": [MONDAY - timedelta(days=40)] * len(bought),
            "item_ids": bought.tolist(),
        }
    )


def _report_of(work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.monitoring", "--report", str(work)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SIDREC_HOME": str(work / "home")},
    )
    if done.returncode:
        raise CheckFailedError(f"the report failed: {done.stderr[-2_000:]}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _make_report(work: Path) -> None:
    """Make one report and print what it took."""
    from monitoring import report as reports
    from sidrec import home

    recipe = load_recipe(RECIPE)[1]
    control, treatment = (work / bundle_id for bundle_id in BUNDLES.values())
    sources = reports.Sources(home.exposures_dir(), home.outcomes_dir(), work / "baskets", control, (treatment,))
    started = time.perf_counter()
    built = reports.build(sources, recipe)
    assert built is not None
    folder = reports.report_dir(built)
    verdict = reports.save(built, recipe, folder, reports.workspace_dir())
    seconds = time.perf_counter() - started
    written = [path for path in folder.iterdir()] + list(reports.workspace_dir().rglob("*.json"))
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": peak_bytes(),
                "bytes": sum(path.stat().st_size for path in written),
                "page": (folder / reports.HTML).stat().st_size,
                "requests": verdict["n"]["compared_requests"] + verdict["n"]["reference_requests"],
                "outcomes": verdict["outcomes"]["outcomes"],
            }
        )
    )


def main() -> None:
    """Measure another size, or make the report that is measured."""
    if sys.argv[1] == "--report":
        _make_report(Path(sys.argv[2]))
        return
    for row in measured(int(sys.argv[1]), judge=False):
        print(f"{row.name}: {row.ours:.2f} {row.unit} ({row.notes})")


if __name__ == "__main__":
    main()
