"""`sidrec ab explore` and `preread` from logs to a sentence."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidrec import exposure, home
from sidrec.cli.main import main
from sidrec.release.ledger import Ledger
from tests.monitoring.drift_world import at, bought, exposed, write_exposures, write_outcomes
from tests.sidrec.cli.test_ab_run import bundles  # noqa: F401 - a fixture
from tests.sidrec.experiment.test_preread import logged

MONDAY = date(2010, 11, 1)


def call(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    status = main(["ab", *arguments, "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert status == expect, value
    return value


def write(requests: int) -> None:
    """Write the logs of a world whose champion is the better one, and a request ten days later."""
    drawn, answers = logged(requests, 1)
    rows, taken = [], []
    for (request, user), group in drawn.group_by("request_id", "user_id", maintain_order=True):
        items = [f"i{item}" for item in group["item_id"]]
        chances = {"ranks": group["rank"].to_list(), "propensities": group["propensity"].to_list()}
        rows.append(exposed(f"r{request}", f"u{user}", at(MONDAY), items, **chances))
        for item in np.array(items)[group["taken"].to_numpy() == 1]:
            taken.append(bought(f"u{user}", str(item), at(MONDAY, 60), f"r{request}"))
    write_exposures([*rows, exposed("late", "late", at(MONDAY, 10 * 86_400), ["i1"])])
    write_outcomes(taken)
    writer = exposure.ExposureWriter(home.shadow_dir())
    for request, items in answers.iter_rows():
        best = [f"i{item}" for item in items]
        writer.append(exposed(f"r{request}", "u", at(MONDAY), best, arm="shadow", bundle_id="b-aaaaaaaaaaaa"))
    writer.close()


def test_a_worse_bundle_is_seen_before_anybody_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and the numbers; a floor above what the draws know: exit 3, cannot tell."""
    write(4000)
    value = call(capsys, "preread", expect=1)
    plain = call(capsys, "shadow", expect=2)["message"]
    cautious = call(capsys, "preread", "--min-effective", "3000", expect=3)
    assert main(["ab", "preread"]) == 1
    text = capsys.readouterr().out

    assert (value["bundle_id"], value["requests"], value["verdict"]) == ("b-aaaaaaaaaaaa", 4000, "worse")
    assert value["interval"][1] < 0
    assert "no shadow in" in plain  # every answer that it saw was drawn
    assert cautious["verdict"] == "cannot tell"
    assert text.index("b-aaaaaaaaaaaa") < text.index("champion") < text.index("look worse")


@pytest.mark.usefixtures("bundles")
def test_exploration_is_switched_on_and_off(capsys: pytest.CaptureFixture[str]) -> None:
    """Two rows; what is asked for has the setting, then not."""
    move = ("--reason", "to judge the shadow", "--no-deploy")
    call(capsys, "explore", "--share", "0.02", "--temperature", "2", *move)
    on = Ledger().desired()
    call(capsys, "explore", "--share", "0", *move)
    off = Ledger().desired()

    assert on is not None
    assert off is not None
    assert (on.exploration is not None and on.exploration.temperature, off.exploration) == (2.0, None)


def test_without_a_shadow_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2."""
    write_exposures([exposed("r1", "ann", at(MONDAY), ["i1"])])

    assert "as its shadow" in str(call(capsys, "preread", "--outcomes", str(tmp_path), expect=2)["next"])
