"""The rules that decide what counts as moved: `thresholds.yaml`, or what `sidrec drift calibrate` made of it here."""

from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidrec import files, home
from sidrec.settings import read_settings

SHIPPED = Path(__file__).with_name("thresholds.yaml")
FILE = "thresholds.yaml"

Unit = Literal["PSI", "JS over noise floor", "drop", "growth", "rise"]
DISTANCES: tuple[Unit, ...] = ("PSI", "JS over noise floor")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Document):
    """When a metric's window is over, and how many windows make a warning."""

    unit: Unit
    warn: float = Field(gt=0, description="Effect from which a window is over.")
    alarm: float | None = Field(default=None, gt=0, description="Effect from which a warning is an alarm; None: never.")
    min_n: int = Field(ge=1, description="Rows needed on either side.")
    needed: int = Field(default=2, ge=1)
    of: int = Field(default=3, ge=1, le=3)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.needed > self.of:
            raise ValueError(f"needed is {self.needed} of {self.of} windows")
        if self.alarm is not None and self.alarm < self.warn:
            raise ValueError(f"alarm at {self.alarm:g} lies below warn at {self.warn:g}")
        return self


class Calibration(_Document):
    """On what A/A windows the thresholds were set, and how often they then cried wolf on others."""

    windows: int = Field(ge=1, description="A/A windows checked; thresholds were set on others.")
    fitted_windows: int = Field(ge=1)
    requests: int = Field(description="Requests of one window.")
    over: int = Field(ge=0, description="Checked windows in which any metric was over its threshold.")
    over_bound: float = Field(description="Upper 99 % binomial bound of their share.")
    warned: int = Field(ge=0, description="Checked windows in which any metric would have warned.")
    first_day: date
    last_day: date
    raised: dict[str, float] = Field(description="Thresholds that chance alone reached, as they are now.")


class Thresholds(_Document):
    """Rules by metric name; a key may hold `*`."""

    schema_version: Literal[1] = 1
    budget: float = Field(gt=0, lt=1, description="Share of unchanged windows in which anything may be over.")
    clear: float = Field(default=0.8, gt=0, le=1)
    rules: dict[str, Rule]
    calibration: Calibration | None = None

    def rule(self, name: str) -> Rule | None:
        """Return the first rule whose key matches a metric's name, None where it has none."""
        return next((rule for key, rule in self.rules.items() if fnmatchcase(name, key)), None)


def local_path() -> Path:
    """Return where this installation's calibrated thresholds are."""
    return home.monitoring_dir() / FILE


def load(path: Path | None = None) -> Thresholds:
    """Return the thresholds in a file; left out, this installation's own, else the shipped ones.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    chosen = path or (local_path() if local_path().exists() else SHIPPED)
    return read_settings(chosen, Thresholds, "thresholds", next_step="sidrec drift calibrate writes them anew")


def save(thresholds: Thresholds, path: Path) -> None:
    """Write thresholds as YAML, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text_atomic(
        path, yaml.safe_dump(thresholds.model_dump(mode="json", exclude_none=True), sort_keys=False)
    )
