"""Targets are named in the settings, their addresses are not, and a real listener hears what is sent."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitoring import alerts
from monitoring.alerts import AlertConfig, Target
from monitoring.incidents import Incident, Notice, Signal
from sidrec.errors import UsageError
from tests.monitoring.alert_world import listening

SIGNAL = Signal(
    key="k",
    level="alarm",
    what="codes collapsed",
    since="2010-09-20",
    arm="treatment",
    bundle_id="b-1",
    command="sidrec drift triage",
    runbook="docs/monitoring.md#codes-collapsed",
)
NOTICE = Notice(kind="start", incident=Incident(signal=SIGNAL, opened_at=datetime(2026, 1, 5, tzinfo=UTC)))


def test_a_webhook_on_loopback_hears_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address comes from the environment; title, body and kind arrive."""
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        taken = alerts.send(Target(name="oncall", url_env="SIDREC_ALERT_URL"), NOTICE)

    assert taken
    assert (heard.told[0]["title"], heard.told[0]["type"]) == (NOTICE.title, "failure")
    assert heard.fields(0)["bundle"] == "b-1"


def test_a_listener_that_refuses_did_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status of 500 is owed to the next run."""
    with listening() as heard:
        heard.answer = 500
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)

        assert not alerts.send(Target(name="oncall", url_env="SIDREC_ALERT_URL"), NOTICE)


def test_an_address_in_a_mounted_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    """A secret that is mounted later is found later; one that is absent is no address."""
    target = Target(name="oncall", url_file=tmp_path / "url")
    before = target.url()
    (tmp_path / "url").write_text("json://127.0.0.1:1/x\n")

    assert (before, target.url()) == (None, "json://127.0.0.1:1/x")


def test_a_wrong_address_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the target and the variable, not what it holds."""
    monkeypatch.setenv("SIDREC_ALERT_URL", "nonsense://secret-token")

    with pytest.raises(UsageError) as error:
        alerts.send(Target(name="oncall", url_env="SIDREC_ALERT_URL"), NOTICE)

    assert "SIDREC_ALERT_URL" in error.value.message
    assert "secret" not in f"{error.value.message}{error.value.next_step}"


def test_settings_cannot_spell_an_address(tmp_path: Path) -> None:
    """A `url` in the file is refused, and what it holds is not repeated."""
    path = tmp_path / "alerts.yaml"
    path.write_text("targets: [{name: oncall, url: 'slack://secret-token'}]\n")

    with pytest.raises(UsageError, match=r"targets\.0\.url") as error:
        alerts.load_alert_config(path)

    assert "secret" not in error.value.message


def test_the_shipped_settings_load_and_watch_this_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any setting the monitoring pipeline has 26 hours; another file is named by a variable."""
    shipped = alerts.load_alert_config()
    (tmp_path / "own.yaml").write_text("heartbeats: {training: 50}\n")
    monkeypatch.setenv("SIDREC_ALERTS", str(tmp_path / "own.yaml"))

    assert shipped.heartbeats == AlertConfig().heartbeats == {"monitoring": 26}
    assert alerts.load_alert_config().heartbeats == {"training": 50}
