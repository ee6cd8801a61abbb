"""What docs/experimentation.md says of checks, fields and verdicts is what the code does."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from sidrec.experiment.decision import Verdict
from sidrec.experiment.plan import Plan
from sidrec.experiment.sample_ratio import SRM_LIMIT
from sidrec.experiment.trust import MAX_LOST, MAX_MISSING, trust_box
from tests.experiment_world import plan, simulated_users


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "experimentation.md").read_text()


def first_cells(page: str, heading: str) -> list[str]:
    """The first cells of the table that opens with `heading`, without their marks."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    return [row.split("|")[1].strip(" `*") for row in table[1].splitlines()]


def test_trust_checks_are_all_explained_in_their_order(page: str) -> None:
    """The table has a row a check."""
    checks = [check.name for check in trust_box(plan(), simulated_users(2000))]

    assert first_cells(page, "check") == checks


def test_limits_are_the_code_s(page: str) -> None:
    """A limit that moves must move here too."""
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}

    assert f"p < {SRM_LIMIT:.4f}".replace("0.", ".") in rows["sample_ratio"]
    assert f"over {MAX_LOST:.0%}".replace("%", " %") in rows["exposure_loss"]
    assert f"over {MAX_MISSING:.0%}".replace("%", " %") in rows["missing_outcomes"]


def test_plan_fields_exist(page: str) -> None:
    """The page names no field that a plan lacks."""
    assert set(first_cells(page, "field")) <= set(Plan.model_fields)


def test_every_verdict_has_its_row(page: str) -> None:
    """Nobody reads a verdict that the page does not explain."""
    assert {cell.removesuffix(" until N") for cell in first_cells(page, "verdict")} == set(get_args(Verdict))


def test_the_plan_on_the_page_is_one(page: str) -> None:
    """It loads, and reads only columns that the page says the logs give."""
    text = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert text is not None
    shown = Plan.model_validate(yaml.safe_load(text[1]))
    given = page.split("Columns that the logs give:")[1].split("\n\n")[0]

    assert all(f"`{column}`" in given for metric in shown.metrics for column in metric.columns)
