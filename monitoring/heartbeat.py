"""The dead man's switch: a pipeline that succeeds leaves a stamp, and somebody else looks how old it is.

Who looks must not be who runs: `sidrec drift heartbeat` from cron, or Prometheus on the stamps' own metric.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from monitoring.incidents import Signal
from sidrec import files, home

_HOUR_S = 3600


def folder() -> Path:
    """Return the folder of the stamps, one a pipeline."""
    return home.monitoring_dir() / "heartbeats"


def beat(pipeline: str, *, now: datetime) -> None:
    """Leave the stamp of a run that succeeded just now."""
    files.write_json_atomic(folder() / f"{pipeline}.json", {"pipeline": pipeline, "succeeded_at": now.isoformat()})


def stamps() -> dict[str, datetime]:
    """Return when each pipeline last succeeded."""
    read = [files.read_json(path) for path in sorted(folder().glob("*.json"))]
    return {str(stamp["pipeline"]): datetime.fromisoformat(stamp["succeeded_at"]) for stamp in read}


def key(pipeline: str) -> str:
    """Return the key of the incident of a silent pipeline."""
    return f"heartbeat:{pipeline}"


def silent(limits: Mapping[str, float], *, runbook: str, now: datetime) -> list[Signal]:
    """Return a signal for each pipeline without a success within its hours; one that never succeeded is silent too.

    Args:
        limits: hours by pipeline.
    """
    found = stamps()
    return [
        _signal(pipeline, hours, found.get(pipeline), runbook, now)
        for pipeline, hours in limits.items()
        if pipeline not in found or (now - found[pipeline]).total_seconds() > hours * _HOUR_S
    ]


def _signal(pipeline: str, hours: float, last: datetime | None, runbook: str, now: datetime) -> Signal:
    if last is None:
        seen, since = "none yet", f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    else:
        age = (now - last).total_seconds() / _HOUR_S
        since = f"{last.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        seen = f"the last one ended {age:.0f} h ago"
    return Signal(
        key=key(pipeline),
        level="alarm",
        what=f"no successful run of {pipeline} in {hours:g} h: {seen}",
        since=since,
        command="sidrec status" if pipeline != "monitoring" else "sidrec drift report",
        runbook=f"{runbook}#no-successful-run",
    )
