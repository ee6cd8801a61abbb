"""Who is told of an incident, and how: targets by name, their addresses from the environment or a mounted file.

An address holds a secret more often than not (a webhook's token, a mailbox's password), so the settings cannot
spell one; they say where it is.
"""

import os
from pathlib import Path
from typing import Self

import apprise
from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.incidents import Level, Notice
from sidrec.errors import UsageError
from sidrec.settings import read_settings

SETTINGS_VARIABLE = "SIDREC_ALERTS"
_TYPES = {("start", "alarm"): "failure", ("start", "warn"): "warning"}


class Target(BaseModel):
    """One place that is told: an Apprise address by the place where it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    url_env: str | None = Field(None, description="Environment variable that holds the address.")
    url_file: Path | None = Field(None, description="Mounted file that holds the address.")
    level: Level = Field("alarm", description="The least level that it is told of.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url_env is None) == (self.url_file is None):
            raise ValueError(f"target {self.name} has one of url_env and url_file")
        return self

    @property
    def source(self) -> str:
        """Where the address is kept, in words."""
        return f"file {self.url_file}" if self.url_env is None else f"variable {self.url_env}"

    def url(self) -> str | None:
        """Return the address, None where nothing is kept."""
        if self.url_env is not None:
            return os.environ.get(self.url_env, "").strip() or None
        assert self.url_file is not None
        return self.url_file.read_text(encoding="utf-8").strip() or None if self.url_file.is_file() else None


class AlertConfig(BaseModel):
    """Whom to tell, and when a silence is a trouble too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[Target, ...] = ()
    recover_after: int = Field(2, ge=1, description="Runs in a row without the signal that end an incident.")
    heartbeats: dict[str, float] = Field(
        default_factory=lambda: {"monitoring": 26.0},
        description="Hours that a pipeline may be without a successful run.",
    )
    runbooks: str = Field(
        "docs/runbooks/drift.md", description="Where the links point: a path, or the address of a copy."
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"two targets share a name: {', '.join(sorted(names))}")
        return self


def load_alert_config(path: Path | None = None) -> AlertConfig:
    """Return the settings: those of a file, of the file that SIDREC_ALERTS names, or those beside this module.

    Raises:
        UsageError: there is no such file, or it says something unknown.
    """
    named = path or Path(os.environ.get(SETTINGS_VARIABLE) or Path(__file__).with_name("alerts.yaml"))
    return read_settings(
        named,
        AlertConfig,
        "alert settings",
        next_step="an address is never spelt here: url_env or url_file says where it is (docs/monitoring.md)",
        secret=True,
    )


def send(target: Target, notice: Notice) -> bool:
    """Return whether a target took a notice; False where it has no address, or did not answer.

    Raises:
        UsageError: its address is none that Apprise knows.
    """
    url = target.url()
    if url is None:
        return False
    # Nothing is kept on disk between calls: what was told stands in `incidents.json` alone.
    asset = apprise.AppriseAsset(app_id="sidrec", app_desc="sidrec", app_url="", storage_mode="memory")
    door = apprise.Apprise(asset=asset)
    if not door.add(url):
        raise UsageError(
            f"the address of target {target.name} ({target.source}) is no Apprise address",
            next_step="such as json://host:port/path, mailtos://…, slack://… (docs/monitoring.md)",
        )
    kind = _TYPES.get((notice.kind, notice.incident.signal.level), "success")
    return bool(door.notify(title=notice.title, body=notice.body, notify_type=kind))
