"""What docs/release.md says of checks, guardrails, rules and commands is what the code has."""

import re
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml

from sidrec.cli import guard, keys, ledger, release, takedown
from sidrec.release.checks import CHECKS
from sidrec.release.policy import Guardrails, Policy
from sidrec.release.row import _SECOND_FIELDS, Action, Stage


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "release.md").read_text()


def first_cells(page: str, heading: str) -> list[str]:
    """The names in the first cells of the table that opens with `heading`."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    return [name for row in table[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_every_check_and_place_and_guardrail_has_its_row(page: str) -> None:
    """In the code's order, and none more."""
    assert first_cells(page, "check") == list(CHECKS)
    assert first_cells(page, "place") == list(get_args(Stage))
    names = {"lost_answers", *Guardrails.model_fields} - {"min_requests"}
    assert set(first_cells(page, "guardrail")) == names


def test_the_policy_shown_is_the_one_in_force_without_a_file(page: str) -> None:
    """Key by key, value by value."""
    shown = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)

    assert shown is not None
    assert yaml.safe_load(shown[1]) == Policy().model_dump()


def test_every_action_and_field_is_named(page: str) -> None:
    """What a row may say is on the page."""
    assert all(f"`{name}`" in page for name in (*get_args(Action), *_SECOND_FIELDS))


def test_every_command_shown_exists(page: str) -> None:
    """A command of this page that is one of these modules' is a command."""
    app = typer.Typer()
    for module in (ledger, release, guard, takedown, keys):
        module.mount(app)
    root = typer.main.get_command(app)
    commands: dict[str, set[str]] = {name: set(getattr(one, "commands", {})) for name, one in root.commands.items()}  # type: ignore[attr-defined]
    shown = re.findall(r"sidrec (promote|approve|rollback|guard|takedown|ledger|keys)(?: ([a-z]+))?", page)

    assert {name for name, _ in shown} == set(commands)
    assert all(word in commands[name] for name, word in shown if name in ("ledger", "keys", "takedown") and word)
