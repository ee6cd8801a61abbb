"""Commands leave with the exit status and the words that scripts and people rely on."""

import json
from pathlib import Path

import pytest

from sidrec import packages
from sidrec.cli import run
from sidrec.cli.main import app, main


def test_doctor_finds_this_machine_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the tests run, every check of the doctor holds."""
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_doctor_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Without a Triton server the doctor fails and says which command mends it."""
    monkeypatch.setenv("SIDREC_TRITON_HOME", str(tmp_path))

    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "FAIL tritonserver" in said.out
    assert "make setup" in said.err


def test_commands_are_there_once() -> None:
    """A process that calls twice has each command once, so that the next call costs what the first did."""
    main(["--version"])
    main(["--version"])
    commands = [command.callback for command in app.registered_commands]
    groups = [group.typer_instance for group in app.registered_groups]

    assert len(commands) == len(set(commands)) > 10
    assert len(groups) == len(set(map(id, groups))) > 3


def test_status_of_an_empty_house(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first run there is no champion, no run and no server, and that is no error."""
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["champion"], status["last_run"], status["serving"]["state"]) == (None, None, "stopped")


def test_health_without_a_champion_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for the champion's codebook before a promotion exits 2 and names the next command."""
    assert main(["sid", "health", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["next"] == "sidrec bundle list"


def test_unknown_recipe_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe that is not there exits 2 and is named."""
    assert main(["run", "--recipe", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_recipe_of_another_protocol_is_sent_to_evaluate(
    capsys: pytest.CaptureFixture[str], project_root: Path
) -> None:
    """A run gates on baskets; a leave-one-out recipe would be judged by rules that it did not ask for."""
    recipe = str(project_root / "pipelines" / "recipes" / "s2gr_beauty.yaml")

    assert main(["run", "--recipe", recipe, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["next"].startswith(f"sidrec evaluate --recipe {recipe}")


def test_a_run_without_its_packages_ends_before_its_first_step(
    capsys: pytest.CaptureFixture[str], project_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is written, and the extra that has them is named."""
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "transformers" else object())
    # A check that is missing must not cost the tests a whole run.
    monkeypatch.setattr(run, "_run_slot", lambda *_, **__: pytest.fail("the pipeline was started"))
    recipe = str(project_root / "pipelines" / "recipes" / "sidreasoner_debug.yaml")

    assert main(["run", "--recipe", recipe, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["message"] == "recipe sidreasoner_debug needs transformers, not installed here"
    assert said["next"] == "pip install 'sidrec[llm]'"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--recip", "x"], ["promote"]])
def test_wrong_calls_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command, an unknown option and a missing one are usage errors."""
    assert main(arguments) == 2


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version alone."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2
