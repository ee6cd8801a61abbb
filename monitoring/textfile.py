"""What Prometheus is told of monitoring itself: a file for node_exporter's textfile collector.

A batch job has no page that could be scraped. The file says when each pipeline last succeeded, what is open, and the
newest verdict, finding by finding.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from monitoring import findings, heartbeat, incidents
from monitoring.findings import DriftVerdict
from sidrec import home

SEVERITY = {"insufficient": -1, "ok": 0, "warn": 1, "alarm": 2}
LAST_SUCCESS = "sidrec_last_success_timestamp_seconds"
OPEN = "sidrec_incident_open"
LEVEL = "sidrec_drift_level"
EFFECT = "sidrec_drift_effect"
THRESHOLD = "sidrec_drift_threshold"
ROWS = "sidrec_drift_rows"
NAMES = (LAST_SUCCESS, OPEN, LEVEL, EFFECT, THRESHOLD, ROWS)


def path() -> Path:
    """Return the file; node_exporter's --collector.textfile.directory is its folder."""
    return home.monitoring_dir() / "metrics" / "sidrec.prom"


def publish(verdict: DriftVerdict | None) -> None:
    """Write the file, whole or not at all.

    Args:
        verdict: the newest one; None keeps the one of the newest report.
    """
    shown = verdict or newest_verdict()
    registry = CollectorRegistry()
    success = Gauge(LAST_SUCCESS, "When a pipeline last succeeded", ["pipeline"], registry=registry)
    for pipeline, time in heartbeat.stamps().items():
        success.labels(pipeline).set(time.timestamp())
    opened = Gauge(OPEN, "Incidents that are open", ["key", "level", "arm"], registry=registry)
    for key, incident in incidents.read().incidents.items():
        if incident.over_at is None:
            opened.labels(key, incident.signal.level, incident.signal.arm or findings.ALL_ARMS).set(1)
    if shown is not None:
        _verdict(shown, registry)
    path().parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path()), registry)


def newest_verdict() -> DriftVerdict | None:
    """Return the verdict of the newest week that was reported, None before the first report."""
    folder = newest_report()
    return None if folder is None else findings.read(folder)


def newest_report() -> Path | None:
    """Return the folder of the newest week's report (its newest, of several references); None before the first."""
    reports = (home.monitoring_dir() / "reports").glob(f"*/{findings.DRIFT}")
    newest = max(reports, key=lambda file: (file.parent.name[:10], file.stat().st_mtime), default=None)
    return None if newest is None else newest.parent


def _verdict(verdict: DriftVerdict, registry: CollectorRegistry) -> None:
    level = Gauge(LEVEL, "-1 insufficient, 0 ok, 1 warn, 2 alarm", ["reference"], registry=registry)
    level.labels(verdict.reference).set(SEVERITY[verdict.level])
    labels = ["name", "area", "arm", "bundle"]
    effect, threshold, rows = (
        Gauge(name, text, labels, registry=registry)
        for name, text in (
            (EFFECT, "How far a measure moved, in its own unit"),
            (THRESHOLD, "Where its warning begins"),
            (ROWS, "Rows behind it"),
        )
    )
    for finding in verdict.findings:
        values = (finding.name, finding.area, finding.arm, finding.bundle_id or "")
        rows.labels(*values).set(finding.n)
        if finding.effect is not None:
            effect.labels(*values).set(finding.effect)
        if finding.threshold is not None:
            threshold.labels(*values).set(finding.threshold)
