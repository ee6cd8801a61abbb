"""`sidrec ab` from a plan to a sentence, on simulated logs that say so."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from sidrec.cli.main import main
from sidrec.release.revision import Revision

PLAN: dict[str, Any] = {
    "experiment": "codes",
    "control": "champion",
    "treatment": "challenger",
    "shares": {"champion": 0.5, "challenger": 0.5},
    "primary": {"name": "hits per user", "numerator": "hits", "covariate": "past"},
    "minimum_effect": 0.05,
    "guardrails": [{"metric": {"name": "requests", "numerator": "requests"}, "margin": 0.1}],
    "slices": ["new_user"],
    "planned_users": 4_000,
    "max_users": 200_000,
}
CROSSED = {
    "shares": dict.fromkeys(("champion", "challenger", "codes", "model"), 0.25),
    "cells": {"neither": "champion", "codebook": "codes", "model": "model", "both": "challenger"},
}
UNTIL = ("--until", "2020-01-21")


def call(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    status = main(["ab", *arguments, "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert status == expect, value
    return value


def world(folder: Path, *options: str, **changes: Any) -> tuple[str, ...]:
    """Write a plan and simulated logs of it, and return the options that read them."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    out = folder / "logs"
    assert main(["ab", "simulate", str(folder / "plan.yaml"), "--out", str(out), *options]) == 0
    logs = ("--exposures", str(out / "exposures"), "--outcomes", str(out / "outcomes"))
    return (str(folder / "plan.yaml"), *logs, "--revision", str(out / "revision.json"))


@pytest.fixture(scope="module")
def gain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A treatment whose users take half as much again."""
    return world(tmp_path_factory.mktemp("gain"), "--users", "4000", "--lift", "0.5")


def test_a_known_gain_is_shipped(gain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0; the interval holds the truth, the panel has both arms, and all of it is called a simulation."""
    value = call(capsys, "readout", *gain, *UNTIL)
    low, high = value["readout"]["primary"]["relative_always_valid"]

    assert value["readout"]["decision"]["verdict"] == "ship"
    assert low < 0.5 < high
    assert {row["arm"] for row in value["codes"]} == {"champion", "challenger"}
    assert value["simulation"] is True
    assert value["phase"]["days"] == pytest.approx(15, abs=0.1)


def test_a_person_reads_it_in_order(gain: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Simulation, trust, effect, guardrail, slice, semantic IDs, sentence, page; and the page is there."""
    capsys.readouterr()
    assert main(["ab", "readout", *gain, *UNTIL, "--html", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    order = [
        "made up",
        "sample_ratio",
        "every look",
        "guardrail",
        "new_user = True",
        "semantic IDs",
        "Ship: ",
        "page: ",
    ]
    places = [text.index(word) for word in order]

    assert places == sorted(places)
    assert "Simulation: codes" in (tmp_path / "page.html").read_text()


def test_a_red_light_hides_every_number(gain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The servers counted a tenth more answers of one arm: exit 1, no effect and no code in the JSON."""
    counted = call(capsys, "readout", *gain, *UNTIL)["codes"][0]
    lost = f"{counted['arm']}={round(counted['requests'] * 1.1)}"
    value = call(capsys, "readout", *gain, *UNTIL, "--answered", lost, expect=1)

    assert value["readout"]["primary"] is None
    assert value["codes"] == []
    assert "exposure_loss" in value["readout"]["decision"]["sentence"]


def test_too_early_is_not_a_refusal(gain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """On the eighth day few users' weeks are over: exit 3, wait."""
    value = call(capsys, "readout", *gain, "--until", "2020-01-13T04:00:00", expect=3)

    assert value["readout"]["decision"]["verdict"] == "hidden"


def test_four_arms_tell_the_codebook_from_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the codebook alone brings the gain, the attribution says so."""
    given = world(tmp_path, "--users", "8000", "--lift", "0.8", "--arm-lift", "codes=0.8", **CROSSED)
    found = call(capsys, "readout", *given, *UNTIL)["readout"]["attribution"]

    assert found["codebook"]["always_valid"][0] > 0
    assert found["model"]["always_valid"][0] < 0 < found["model"]["always_valid"][1]


def test_a_column_from_outside_can_be_a_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan names a column that only the file has."""
    given = world(tmp_path, "--users", "4000", slices=["country"])
    countries = [
        {"user_id": f"simulated-user-{number}", "country": "FR" if number % 3 else "DE"} for number in range(4000)
    ]
    pl.DataFrame(countries).write_parquet(tmp_path / "users.parquet")
    value = call(capsys, "readout", *given, *UNTIL, "--attributes", str(tmp_path / "users.parquet"), expect=3)

    assert [(one["value"], one["users"]) for one in value["readout"]["slices"]] == [("DE", 1334), ("FR", 2666)]


def test_size_is_known_before_the_start(gain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """From logs: the primary metric and the guardrail, read once and on any day; the plan's maximum is enough."""
    value = call(capsys, "size", *gain[:5])
    primary, guardrail = value["sizes"]

    assert value["enough"]
    assert value["needed"] == max(primary["always_valid_users"], guardrail["always_valid_users"])
    assert 10_000 < primary["fixed_users"] < primary["always_valid_users"] < 200_000


def test_an_experiment_that_cannot_end_is_told_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a table of users: a gain of 1 % needs more than the plan's maximum; exit 3."""
    given = {**PLAN, "minimum_effect": 0.01, "primary": {"name": "hits", "numerator": "hits"}, "guardrails": []}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(given))
    pl.DataFrame({"hits": [0, 0, 0, 1] * 500}).write_parquet(tmp_path / "users.parquet")
    value = call(capsys, "size", str(tmp_path / "plan.yaml"), "--users", str(tmp_path / "users.parquet"), expect=3)

    assert "raise max_users" in value["sentence"]


def test_simulated_arms_are_the_server_s(gain: tuple[str, ...]) -> None:
    """The revision beside the logs gives each simulated user the arm that the logs have."""
    from sidrec import exposure
    from sidrec.release.revision import arm_for

    ran = Revision.model_validate_json(Path(gain[-1]).read_text())
    rows = exposure.read(Path(gain[2])).unique("user_id").head(200)

    assert [arm_for(user, ran.salt, ran.arms).name for user in rows["user_id"]] == rows["arm"].to_list()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("readout", "PLAN", "--answered", "challenger:3"), "is not ARM=COUNT"),
        (("readout", "PLAN", "--revision", "missing.json"), "no revision in missing.json"),
        (("readout", "PLAN", "--revision", "PLAN"), "is no revision"),
        (("readout", "PLAN"), "the ledger asks for no revision"),
        (("readout", "missing.yaml", "--revision", "REVISION"), "no plan in missing.yaml"),
        (("simulate", "PLAN", "--out", "LOGS"), "is not empty"),
        (("simulate", "PLAN", "--out", "new", "--arm-lift", "champion=1"), "is not ARM=LIFT"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    options: tuple[str, ...], message: str, gain: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, in one sentence."""
    places = {"PLAN": gain[0], "REVISION": gain[-1], "LOGS": str(Path(gain[-1]).parent)}
    arguments = [places.get(option, option) for option in options]
    if "--answered" in options:
        arguments += gain[1:]

    assert message in call(capsys, *arguments, expect=2)["message"]


def test_a_plan_that_is_none_is_refused_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every wrong key is named."""
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "alpha": 3, "surprise": 1}))
    said = call(capsys, "size", str(tmp_path / "plan.yaml"), expect=2)["message"]

    assert "alpha: Input should be less than 0.5" in said
    assert "surprise: Extra inputs" in said


def test_past_users_are_drawn_into_arms_without_an_effect(
    gain: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a table of users: the promises hold, CUPED's share is said; a table without a column is a wrong call."""
    table = pl.DataFrame(
        {"user_id": [f"u{n}" for n in range(800)], "hits": [0, 0, 1, 2] * 200, "past": [0, 1, 1, 3] * 200}
    )
    table.write_parquet(tmp_path / "users.parquet")
    value = call(capsys, "aa", gain[0], "--users", str(tmp_path / "users.parquet"), "--draws", "60")
    table.drop("past").write_parquet(tmp_path / "less.parquet")
    lacking = call(capsys, "aa", gain[0], "--users", str(tmp_path / "less.parquet"), expect=2)

    assert (value["draws"], value["users"], value["holds"]) == (60, 800, True)
    assert value["variance_reduction"] > 0.5
    assert "lacks past" in lacking["message"]
