"""What a drift report decided: one finding a metric and arm, one cause a fault, one verdict a window.

The document that alerts, triage and dashboards read; it lies beside the report's page as `drift.json`.
"""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sidrec import files
from sidrec.errors import UsageError

DRIFT = "drift.json"
"""Name of the document in a report's folder (`<SIDREC_HOME>/monitoring/reports/<first day>-<reference>/`)."""
SCHEMA_VERSION = 1

Level = Literal["insufficient", "ok", "warn", "alarm"]
"""In rising order of severity; `insufficient` is too few rows to say anything."""
LEVELS: tuple[Level, ...] = ("insufficient", "ok", "warn", "alarm")

Area = Literal["data", "features", "sid", "decoder", "outcome"]
"""Row of the triage matrix, in the order in which suspects are looked at."""
AREAS: tuple[Area, ...] = ("data", "features", "sid", "decoder", "outcome")

Cause = Literal[
    "unseen_items",
    "popularity_shock",
    "null_histories",
    "stale_features",
    "swapped_columns",
    "codes_collapsed",
    "broken_tie_order",
    "degraded_answers",
    "quality_loss",
    "shifted",
]
"""What moved a metric, as far as its neighbours tell; `shifted` where they tell nothing more."""

ALL_ARMS = "all"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Document):
    """One metric of one arm in one window against its reference."""

    name: str = Field(description="Metric, e.g. `history_source`, `served/0/normalised_entropy`; key of thresholds.")
    area: Area
    arm: str = Field(default=ALL_ARMS, description="An arm's name, or `all`: of purchases, or of all arms together.")
    bundle_id: str | None = Field(default=None, description="What the arm served; None of purchases.")
    window: str = Field(description="First and last day, `2010-11-01..2010-11-07`.")
    reference: str = Field(description="In words, what it is compared with.")
    value: float | None = Field(description="The metric in the window; None of a distance between two histograms.")
    reference_value: float | None
    effect: float | None = Field(description="What the threshold judges; None where there is nothing to compare.")
    unit: str = Field(description="Of the effect: `PSI`, `JS over noise floor`, `drop`, `rise`, `change`.")
    n: int = Field(ge=0, description="Rows in the window.")
    reference_n: int = Field(ge=0)
    min_n: int = Field(ge=1, description="Rows needed on either side.")
    threshold: float | None = Field(description="Effect from which a window counts as over (a warning).")
    alarm_threshold: float | None = Field(default=None, description="Effect from which it alarms; None: it only warns.")
    windows_over: int = Field(default=0, ge=0, description="Of the last `windows_of` windows, this one included.")
    windows_needed: int = Field(default=1, ge=1)
    windows_of: int = Field(default=1, ge=1)
    since: date | None = Field(default=None, description="First day of the unbroken run of windows over the threshold.")
    level: Level
    cause: Cause | None = Field(default=None, description="None below `warn`.")
    sentence: str = Field(description="One line for people: what, how far, against what, n.")

    @property
    def key(self) -> str:
        """Name and arm: what stays equal from window to window, and so identifies an incident."""
        return f"{self.name}@{self.arm}"


class Suspect(_Document):
    """One fault that explains findings, most severe first in `DriftVerdict.suspects`."""

    cause: Cause
    area: Area
    arm: str
    level: Level
    since: date | None
    sentence: str = Field(description="What happened and what speaks for it, e.g. `control is flat`.")
    findings: tuple[str, ...] = Field(description="Keys of the findings that it explains.")
    items: tuple[str, ...] = Field(default=(), description="Items or columns to look at first.")


class DriftVerdict(_Document):
    """Everything that one window's report decided."""

    schema_version: int = SCHEMA_VERSION
    level: Level
    sentence: str
    window: str
    first_day: date
    last_day: date
    reference: str = Field(description="Short name: `fit`, `recent`, or two days.")
    labels_final: bool = Field(description="Whether the label delay has passed, so that outcomes will not change.")
    watermark: int = Field(description="Unix seconds, event clock: rows up to here have been seen.")
    bundle_ids: dict[str, str] = Field(description="Bundle by arm; of several in a window the last.")
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]

    def of(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)


def worst(levels: "tuple[Level, ...] | list[Level]") -> Level:
    """Return the most severe level, `insufficient` of none."""
    return max(levels, key=LEVELS.index, default="insufficient")


def write(verdict: DriftVerdict, folder: Path) -> Path:
    """Return the path of the document, written whole or not at all."""
    path = folder / DRIFT
    files.write_json_atomic(path, verdict.model_dump(mode="json"))
    return path


def read(folder: Path) -> DriftVerdict:
    """Return the verdict in a report's folder.

    Raises:
        UsageError: there is none.
    """
    path = folder / DRIFT
    if not path.exists():
        raise UsageError(f"no {DRIFT} in {folder}", evidence=folder, next_step="sidrec drift report")
    return DriftVerdict.model_validate(files.read_json(path))
