"""Telling of drift as a pipeline step: again at each run, never an alarm's fault, always a lost message's."""

from pathlib import Path

import pytest

from components.alert_drift.run import SECTIONS, never_done, run
from monitoring import findings, heartbeat
from sidrec import files
from sidrec.errors import CheckFailedError
from sidrec.recipe import load_recipe
from sidrec.steps import execute
from tests.monitoring.alert_world import finding, listening, suspect, verdict

COLLAPSED = finding("served/0/normalised_entropy", "alarm", effect=0.5)


def tell(project_root: Path, tmp_path: Path, report: Path) -> dict[str, object]:
    return execute(
        "alert_drift",
        run,
        recipe=load_recipe(project_root / "pipelines" / "recipes" / "s2gr_retail.yaml")[0],
        sections=SECTIONS,
        inputs={"drift_report": report},
        outputs={"told": tmp_path / "run" / "told"},
        still_holds=never_done,
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """An alarming report."""
    folder = tmp_path / "report"
    findings.write(verdict(COLLAPSED, suspects=(suspect("codes_collapsed", "alarm", COLLAPSED),)), folder)
    return folder


def test_an_alarm_is_told_and_fails_nothing(
    report: Path, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs over the same report both run, and tell once."""
    with listening() as heard:
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        first, second = (tell(project_root, tmp_path, report) for _ in range(2))

    assert (first["rows"], second["rows"], len(heard.told)) == (1, 0, 1)
    assert files.read_json(tmp_path / "run" / "told")["open"]


def test_a_message_that_nobody_took_fails_the_step(
    report: Path, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusing listener makes the run red, and no success is stamped."""
    with listening() as heard:
        heard.answer = 500
        monkeypatch.setenv("SIDREC_ALERT_URL", heard.url)
        with pytest.raises(CheckFailedError, match="1 messages were not taken"):
            tell(project_root, tmp_path, report)

    assert not heartbeat.stamps()


def test_a_schedule_that_starts_before_the_first_request_is_a_success(project_root: Path, tmp_path: Path) -> None:
    """A report over nothing tells nothing."""
    files.write_json_atomic(tmp_path / "empty" / "verdict.json", {})
    summary = tell(project_root, tmp_path, tmp_path / "empty")

    assert summary["rows"] == 0
    assert list(heartbeat.stamps()) == ["monitoring"]
