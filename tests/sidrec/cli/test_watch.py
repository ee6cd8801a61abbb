"""`drift alert` and `heartbeat` as cron and people call them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from monitoring import findings, heartbeat
from sidrec import home
from sidrec.cli import monitoring, watch
from sidrec.errors import UsageError
from tests.monitoring.alert_world import finding, listening, suspect, verdict

COLLAPSED = finding("served/0/normalised_entropy", "alarm", effect=0.5)


def call(*arguments: str) -> int:
    """Run a command as `sidrec` does and return its exit status."""
    app = typer.Typer()
    for module in (monitoring, watch):
        module.mount(app)
    result = app(args=list(arguments), standalone_mode=False)
    return result if isinstance(result, int) else 0


def reported(name: str, *suspected: str) -> Path:
    """Leave a report of a week."""
    folder = home.monitoring_dir() / "reports" / name
    sick = suspect("codes_collapsed", "alarm", COLLAPSED)
    well = finding(COLLAPSED.name)
    findings.write(verdict(COLLAPSED, suspects=(sick,)) if suspected else verdict(well), folder)
    return folder


def test_the_newest_week_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Called twice it tells once; an older week's report is not looked at."""
    reported("2010-09-27-fit", "codes")
    reported("2010-09-20-fit")
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        statuses = [call("drift", "alert", "--json") for _ in range(2)]
    told = capsys.readouterr().out

    assert (statuses, len(heard.told)) == ([0, 0], 1)
    assert '"report": "' + str(home.monitoring_dir() / "reports" / "2010-09-27-fit") in told


def test_an_alarm_that_nobody_could_be_told_of_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an address the command exits 1 and names the variable; with nothing to tell it exits 0."""
    reported("2010-09-20-fit")
    well = call("drift", "alert")
    reported("2010-09-27-fit", "codes")
    sick = call("drift", "alert")

    assert (well, sick) == (0, 1)
    assert "SIDREC_ALERT_URL" in capsys.readouterr().out


def test_nothing_reported_is_a_usage_error() -> None:
    """The error says how to make a report."""
    with pytest.raises(UsageError, match="no drift report") as error:
        call("drift", "alert")

    assert error.value.next_step == "sidrec drift report"


@pytest.mark.parametrize(("hours", "status"), [(25, 0), (27, 1)])
def test_cron_learns_of_a_silent_pipeline(
    hours: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """26 hours without a success exit 1 and tell somebody; fewer exit 0."""
    heartbeat.beat("monitoring", now=datetime.now(UTC) - timedelta(hours=hours))
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        assert call("drift", "heartbeat", "--json") == status

    assert len(heard.told) == status
    assert json.loads(capsys.readouterr().out)["ok"] == (status == 0)
