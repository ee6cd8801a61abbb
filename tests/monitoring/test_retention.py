"""Old things go by age, then by size, oldest first; the newest stay whatever they weigh."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from monitoring import retention
from monitoring.retention import Kept, Limit, Retention, doomed
from sidrec import home
from sidrec.errors import UsageError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MB = 1_000_000


def kept(*ages_mb: tuple[int, int]) -> list[Kept]:
    """Return things of an age in days and a size in MB."""
    return [Kept(Path(f"{age}"), NOW - timedelta(days=age), size * MB) for age, size in ages_mb]


@pytest.mark.parametrize(
    ("things", "limit", "gone"),
    [
        (kept((1, 5), (9, 5), (11, 5)), Limit(keep_days=10, budget_mb=100, least=1), ["11"]),
        (kept((1, 5), (2, 5), (3, 5)), Limit(keep_days=10, budget_mb=12, least=1), ["3"]),
        (kept((1, 50), (2, 50), (3, 1)), Limit(keep_days=10, budget_mb=12, least=2), ["3"]),
        (kept((20, 5), (30, 5)), Limit(keep_days=10, budget_mb=100, least=2), []),
        ([], Limit(keep_days=10, budget_mb=1, least=1), []),
    ],
)
def test_age_then_size_then_the_newest(things: list[Kept], limit: Limit, gone: list[str]) -> None:
    """Too old goes; over budget, the oldest go; the least number stays."""
    assert [str(one.path) for one in doomed(things, limit, now=NOW)] == gone


def day(age: int, size: int) -> Path:
    """Write a day of exposures."""
    folder = home.exposures_dir() / f"{NOW - timedelta(days=age):%Y-%m-%d}"
    folder.mkdir(parents=True)
    (folder / "1-a-000000.parquet").write_bytes(b"x" * size)
    return folder


def report(name: str, age: int) -> Path:
    folder = home.monitoring_dir() / "reports" / name
    folder.mkdir(parents=True)
    (folder / "drift.json").write_text("{}")
    made = (NOW - timedelta(days=age)).timestamp()
    os.utime(folder, (made, made))
    return folder


def test_days_of_exposures_and_reports_go_together_with_what_is_in_them() -> None:
    """A replayed week of 2010 is as young as its report; a dry run says the same and removes nothing."""
    old, young = day(200, 10), day(1, 10)
    stale, replayed = report("2026-01-01-fit", 190), report("2010-11-01-fit", 1)
    for name in range(8):
        report(f"other-{name}", 2)
    limits = Retention(exposures=Limit(keep_days=90, budget_mb=1, least=1))
    dry = retention.prune(limits, now=NOW, dry_run=True)
    all_there = all(path.exists() for path in (old, young, stale, replayed))
    done = retention.prune(limits, now=NOW)

    assert all_there
    assert dry == done
    assert [path.exists() for path in (old, young, stale, replayed)] == [False, True, False, True]
    assert {one.kind: len(one.gone) for one in done} == {"reports": 1, "workspace": 0, "exposures": 1}


def test_a_budget_that_the_newest_alone_break_is_said() -> None:
    """Nothing goes that must stay; the sentence says that it is too much."""
    day(0, 2 * MB)
    limits = Retention(exposures=Limit(keep_days=90, budget_mb=1, least=1))
    exposures = retention.prune(limits, now=NOW)[2]

    assert exposures.over_budget
    assert "over its budget" in exposures.sentence


def test_runs_of_the_workspace_are_removed_through_evidently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three runs two go, and the workspace itself no longer lists them."""
    import pandas as pd
    from evidently import Dataset, Report
    from evidently.metrics import RowCount
    from evidently.ui.workspace import Workspace

    store = Workspace.create(str(home.monitoring_dir() / "workspace"))
    project = store.create_project("sidrec")
    snapshot = Report([RowCount()]).run(Dataset.from_pandas(pd.DataFrame({"a": [1]})), None)
    runs = [store.add_run(project.id, snapshot, include_data=False).id for _ in range(3)]
    for age, run in zip((300, 200, 1), runs, strict=True):
        [path] = (home.monitoring_dir() / "workspace").glob(f"*/snapshots/{run}.json")
        made = (NOW - timedelta(days=age)).timestamp()
        os.utime(path, (made, made))
    limits = Retention(workspace=Limit(keep_days=100, budget_mb=100, least=1))
    workspace = retention.prune(limits, now=NOW)[1]
    left = Workspace(str(home.monitoring_dir() / "workspace")).list_runs(project.id)

    assert (len(workspace.gone), [str(run) for run in left]) == (2, [str(runs[2])])


def test_the_shipped_limits_are_the_defaults_and_can_hold_a_reports_weeks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six weeks of exposures always stay; another file is named by a variable, and an unknown word refused."""
    shipped = retention.load_retention()
    monkeypatch.setenv("SIDREC_RETENTION", str(tmp_path / "own.yaml"))
    (tmp_path / "own.yaml").write_text("exposure: {}\n")

    assert shipped == Retention()
    assert shipped.exposures.least >= 42
    with pytest.raises(UsageError, match="exposure"):
        retention.load_retention()
