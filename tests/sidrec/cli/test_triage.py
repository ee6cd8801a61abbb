"""`drift triage` as on-call runs it: the matrix, the two things it may do, and what it never does."""

import json
from pathlib import Path

import pytest
import typer

from monitoring import findings, retrain
from sidrec import home
from sidrec.cli import monitoring, triage
from sidrec.errors import CheckFailedError, UsageError
from sidrec.release.ledger import Ledger
from tests.monitoring.alert_world import finding, suspect, verdict
from tests.sidrec.release.test_stop import book

__all__ = ["book"]

COLLAPSED = finding("served/0/normalised_entropy", "alarm", effect=0.5)
FLAT = finding("served/0/normalised_entropy", arm="control")
SICK = verdict(FLAT, COLLAPSED, suspects=(suspect("codes_collapsed", "alarm", COLLAPSED),))


def call(*arguments: str) -> int:
    """Run a command as `sidrec` does and return its exit status."""
    app = typer.Typer()
    for module in (monitoring, triage):
        module.mount(app)
    result = app(args=["drift", "triage", *arguments], standalone_mode=False)
    return result if isinstance(result, int) else 0


@pytest.fixture
def report() -> Path:
    """A report whose treatment alarms while the control is flat."""
    folder = home.monitoring_dir() / "reports" / "2010-09-20-fit"
    findings.write(SICK, folder)
    return folder


def test_on_call_reads_who_moved_and_what_to_do_first(
    report: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One screen: the answer, the matrix with effect and n, the suspects, the first command; an alarm exits 1."""
    monkeypatch.setenv("COLUMNS", "200")
    status = call()
    screen = capsys.readouterr().out

    assert status == 1
    assert "Us: only treatment moved, control is flat." in screen
    assert "alarm served/0/normalised_entropy 0.5 drop" in screen
    assert "n 6,000" in screen
    assert "1. codes_collapsed (sid, treatment, since 2010-09-20)" in screen
    assert screen.index("next: sidrec drift triage --stop treatment") < screen.index("next: sidrec ledger show")


def test_json_is_the_same_matrix(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts get every cell."""
    call("--json")
    value = json.loads(capsys.readouterr().out)

    assert value["columns"] == ["control", "treatment", "offline"]
    assert [(cell["column"], cell["level"]) for cell in value["cells"]] == [
        ("control", "ok"),
        ("treatment", "alarm"),
        ("offline", None),
    ]


def test_an_arm_that_alarms_alone_is_stopped_through_the_ledger(
    report: Path, book: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row says why; the control answers its users; no bundle is there that was not before."""
    before = book.rows()[-1].revision
    call("--stop", "treatment", "--no-deploy", "--json")
    stopped = json.loads(capsys.readouterr().out)["stopped"]
    row = book.rows()[-1]

    assert (row.action, row.seq) == ("stop", stopped["row"])
    assert "drift of 2010-09-20..2010-09-26" in row.why
    assert row.revision.bundles == before.bundles
    assert row.revision.arms[1].share == 0


def test_an_arm_that_does_not_alarm_is_not_stopped(report: Path, book: Ledger) -> None:
    """Drift stops on evidence only; a person has another command."""
    with pytest.raises(CheckFailedError, match="does not alarm") as error:
        call("--stop", "other")

    assert "sidrec ab stop" in str(error.value.next_step)
    assert len(book.rows()) == 1


def test_a_retrain_is_asked_for_and_nothing_is_deployed(
    report: Path, book: Ledger, own_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The queue has the request; the ledger, the registry and Triton's repository are as they were."""
    before = book.rows()
    call("--queue-retrain")
    asked = retrain.read().waiting
    said = capsys.readouterr().out

    assert asked is not None
    assert asked.why.startswith("drift of 2010-09-20..2010-09-26")
    assert "sidrec run --if-queued" in said
    assert book.rows() == before
    assert not [path for path in (home.registry_dir(), home.triton_repository_dir()) if path.exists()]


def test_nothing_reported_is_a_usage_error() -> None:
    """The error says how to make a report."""
    with pytest.raises(UsageError, match="no drift report"):
        call()
