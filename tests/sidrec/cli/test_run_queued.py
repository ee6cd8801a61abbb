"""`run --if-queued`: the schedule trains only where drift asked for it and the cool-down is over."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from monitoring import heartbeat, retrain
from sidrec.cli import run
from sidrec.errors import CheckFailedError


def call(*arguments: str) -> None:
    """Run the command as `sidrec` does."""
    app = typer.Typer()
    app.command()(run.run)
    app(args=["--if-queued", *arguments], standalone_mode=False)


@pytest.mark.parametrize("asked", [False, True])
def test_nothing_that_is_due_runs_nothing(asked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a request, and with one that cools down, it says so and makes no slot."""
    if asked:
        retrain.taken(now=datetime.now(UTC))
        retrain.ask(who="ann", why="drift", now=datetime.now(UTC))
    call("--json")
    said = json.loads(capsys.readouterr().out)

    assert said["result"] == "not queued"
    assert (said["due_at"] is not None) == asked


def test_a_request_that_is_due_is_carried_out_and_closed(
    monkeypatch: pytest.MonkeyPatch, project_root: Path, own_state: Path
) -> None:
    """The run's success closes the request and leaves the stamp that the dead man's switch looks at."""
    retrain.ask(who="ann", why="drift", now=datetime.now(UTC) - timedelta(days=1))
    monkeypatch.chdir(project_root)

    def finished(slot: object, text: str, pipeline: str, *rest: object, **more: object) -> dict[str, object]:
        return {"slot": "s", "result": result, "reason": "x", "step": None, "evidence": None, "next": None, "steps": [],
                "sentence": "", "bundle_id": "b", "seconds": 1, "distances": {}}  # fmt: skip

    monkeypatch.setattr(run, "_run_slot", finished)
    result = "failed"
    with pytest.raises(CheckFailedError, match="x"):
        call("--json")
    after_failure = retrain.read().waiting, heartbeat.stamps()
    result = "ok"
    call("--json")

    assert after_failure[0] is not None
    assert after_failure[1] == {}
    assert retrain.read().waiting is None
    assert list(heartbeat.stamps()) == ["training"]
