"""How long reports, the workspace's runs and the exposure log are kept, and how large they may grow.

What is older than its days goes; then the oldest, until the rest is within its budget. The newest few stay whatever
they weigh: a report needs the weeks before it, and a budget that is too small shall say so rather than blind us.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sidrec import home
from sidrec.settings import read_settings

SETTINGS_VARIABLE = "SIDREC_RETENTION"
Kind = Literal["reports", "workspace", "exposures"]
_MB = 1_000_000
_STEPS = ("report_drift", "alert_drift", "prune_monitoring")


class Limit(BaseModel):
    """How long and how much of one kind of thing is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: float = Field(gt=0)
    budget_mb: float = Field(gt=0)
    least: int = Field(ge=1, description="How many of the newest stay in any case.")


class Retention(BaseModel):
    """The limit of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reports: Limit = Limit(keep_days=182, budget_mb=500, least=8)
    workspace: Limit = Limit(keep_days=182, budget_mb=500, least=16)
    exposures: Limit = Limit(keep_days=180, budget_mb=20_000, least=42)


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing on disk: a report's folder, a run of the workspace, a day of exposures."""

    path: Path
    made_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went of one kind, and what is left; sizes are bytes."""

    kind: Kind
    gone: tuple[str, ...]
    freed: int
    left: int
    size: int
    over_budget: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return asdict(self) | {"gone": list(self.gone)}

    @property
    def sentence(self) -> str:
        """One line: what went, what is left, and whether that is still too much."""
        more = "; that is over its budget, and the newest are never removed" if self.over_budget else ""
        gone, freed = len(self.gone), self.freed / _MB
        return f"{self.kind}: {gone} removed ({freed:.1f} MB), {self.left} left ({self.size / _MB:.1f} MB){more}"


def load_retention(path: Path | None = None) -> Retention:
    """Return the limits: those of a file, of the file that SIDREC_RETENTION names, or those beside this module.

    Raises:
        UsageError: there is no such file, or it says something unknown.
    """
    named = path or Path(os.environ.get(SETTINGS_VARIABLE) or Path(__file__).with_name("retention.yaml"))
    return read_settings(named, Retention, "retention settings")


def prune(limits: Retention, *, now: datetime, dry_run: bool = False) -> list[Pruned]:
    """Return what went of each kind; a dry run removes nothing and says the same."""
    found: dict[Kind, tuple[list[Kept], Callable[[Path], None]]] = {
        "reports": ([*_reports()], shutil.rmtree),
        "workspace": ([*_runs()], _delete_run),
        "exposures": ([*_days()], shutil.rmtree),
    }
    return [
        _prune(kind, kept, getattr(limits, kind), remove, now=now, dry_run=dry_run)
        for kind, (kept, remove) in found.items()
    ]


def doomed(kept: Sequence[Kept], limit: Limit, *, now: datetime) -> list[Kept]:
    """Return what a limit removes, oldest first."""
    oldest_first = sorted(kept, key=lambda one: (one.made_at, one.path))
    may_go = oldest_first[: max(0, len(oldest_first) - limit.least)]
    size = sum(one.size for one in oldest_first)
    gone = []
    for one in may_go:
        if now - one.made_at <= timedelta(days=limit.keep_days) and size <= limit.budget_mb * _MB:
            break
        gone.append(one)
        size -= one.size
    return gone


def _prune(
    kind: Kind, kept: list[Kept], limit: Limit, remove: Callable[[Path], None], *, now: datetime, dry_run: bool
) -> Pruned:
    gone = doomed(kept, limit, now=now)
    if not dry_run:
        for one in gone:
            remove(one.path)
    freed = sum(one.size for one in gone)
    size = sum(one.size for one in kept) - freed
    names = tuple(str(one.path.relative_to(home.home())) for one in gone)
    return Pruned(kind, names, freed, len(kept) - len(gone), size, over_budget=size > limit.budget_mb * _MB)


def _reports() -> Iterator[Kept]:
    """Yield report folders, and those of the pipeline's steps; the code that pages share is no report."""
    folders = (home.monitoring_dir() / "reports", *(home.steps_dir() / step for step in _STEPS))
    for folder in (path for parent in folders for path in parent.glob("*") if path.is_dir()):
        yield Kept(folder, _made(folder), _size(folder))


def _runs() -> Iterator[Kept]:
    for path in (home.monitoring_dir() / "workspace").glob("*/snapshots/*.json"):
        yield Kept(path, _made(path), path.stat().st_size)


def _days() -> Iterator[Kept]:
    for folder in home.exposures_dir().glob("????-??-??"):
        yield Kept(folder, datetime.fromisoformat(folder.name).replace(tzinfo=UTC), _size(folder))


def _delete_run(path: Path) -> None:
    """Remove a run through Evidently, which keeps more than the file of it."""
    from evidently.ui.workspace import Workspace

    store = Workspace(str(path.parents[2]))
    store.delete_run(path.parents[1].name, path.stem)


def _made(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
