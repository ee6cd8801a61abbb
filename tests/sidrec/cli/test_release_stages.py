"""Stages, approvals, guard, takedown, keys and exports from the command line, as people and scripts meet them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from serving import registry
from sidrec import exposure, home
from sidrec.bundle import Bundle
from sidrec.cli import guard, keys, ledger, release, takedown
from sidrec.errors import LedgerError, PromotionError, ServingError, UsageError
from sidrec.release.ledger import Ledger
from tests.release_world import make_bundle, make_signed
from tests.sidrec.release.test_guard import logged


@pytest.fixture(autouse=True)
def actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_ACTOR", "ann")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    """Two registered bundles; the first one is champion."""
    made = [make_bundle(tmp_path / str(seed), seed) for seed in range(2)]
    for number, bundle in enumerate(made):
        make_signed(bundle, tmp_path / f"{number}.json")
        registry.register(bundle.folder, tmp_path / f"{number}.json")
    run("promote", made[0].bundle_id, "--reason", "first", "--no-deploy")
    return made


def run(*arguments: str) -> tuple[int, str]:
    """Return a command's exit status and what it printed."""
    app = typer.Typer()
    for module in (ledger, release, guard, takedown, keys):
        module.mount(app)
    result = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.return_value or 0, result.stdout


def ask(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json")[1])


def test_a_canary_is_asked_for_shown_and_too_young(bundles: list[Bundle]) -> None:
    """Its place is in the ledger's table; champion it is only after its hours, and the refusal names the way out."""
    value = ask("promote", bundles[1].bundle_id, "--to", "canary", "--share", "0.1", "--reason", "try", "--no-deploy")
    with pytest.raises(PromotionError, match="dwell") as refused:
        run("promote", bundles[1].bundle_id, "--reason", "good", "--no-deploy")

    assert (value["stage"], value["bundle_id"]) == ("canary", bundles[1].bundle_id)
    assert value["beside_champion"]["all"] == {"ndcg@10": [0.25, 0.25]}
    assert "promote canary" in run("ledger", "show")[1]
    assert "--override dwell --second-approver NAME" in str(refused.value.next_step)


def test_two_people_promote(bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is told who comes next; the second one's approval is what is deployed."""
    (home.home() / "release.yaml").write_text("two_person: true\n")
    said = run("promote", bundles[1].bundle_id, "--reason", "better")[1]
    with pytest.raises(UsageError, match="nobody approves what they asked for"):
        run("approve", "--reason", "me too")
    monkeypatch.setenv("SIDREC_ACTOR", "bob")
    value = ask("approve", "2", "--reason", "read the verdict")

    assert "sidrec approve 2" in said
    assert "(asked)" in run("ledger", "show")[1]
    assert value["deployment"]["revision"] == value["revision"] == 3
    assert run("ledger", "verify")[1].startswith("3 rows, every hash holds")
    assert ask("ledger", "verify")["revisions"] == [3]


def test_guard_stops_a_canary_that_hurts(bundles: list[Bundle]) -> None:
    """Nothing runs: 0. Too few answers: 3. Fine: 0. It hurts: stopped, deployed, 1. A dry run only looks."""
    idle = run("guard")
    run("promote", bundles[1].bundle_id, "--to", "canary", "--share", "0.2", "--reason", "try", "--no-deploy")
    young = run("guard")
    revision = Ledger().desired()
    assert revision is not None
    write(logged(revision))
    fine = run("guard")
    write(logged(revision, cold=0.3))
    looked = run("guard", "--dry-run")
    rows = len(Ledger().rows())
    code, said = run("guard", "--json")
    desired = Ledger().desired()

    assert (idle[0], young[0], fine[0], looked[0], code) == (0, 3, 0, 1, 1)
    assert "no arm but the champion" in idle[1]
    assert "too few answers yet" in young[1]
    assert "of its answers are cold" in looked[1]
    assert rows == 2
    value = json.loads(said)
    assert (value["stopped"], value["row"]) == ("canary", 3)
    assert value["deployment"]["bundle_ids"] == [bundles[0].bundle_id]
    assert desired is not None
    assert desired.bundle_ids == (bundles[0].bundle_id,)


def write(rows: pl.LazyFrame) -> None:
    """Make these the only exposures of this installation."""
    table = pl.concat([exposure.SCHEMA.to_frame(), rows.collect()], how="diagonal_relaxed").cast(dict(exposure.SCHEMA))
    path = home.exposures_dir() / "2026-01-01" / "1.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)


def test_a_takedown_is_a_row_and_in_force(bundles: list[Bundle]) -> None:
    """The list is what the servers read, and the ledger has all of it with who and why."""
    run("takedown", "add", "i02", "i01", "--reason", "recalled")
    run("takedown", "remove", "i02", "--reason", "was fine")
    added, removed = Ledger().rows()[1:]

    assert ask("takedown", "list")["items"] == ["i01"]
    assert home.takedown_path().read_text() == "i01\n"
    assert (added.action, added.items, added.why) == ("takedown", ("i01", "i02"), "recalled")
    assert removed.items == ("i01",)
    assert Ledger().desired() == added.revision


def test_a_takedown_is_in_force_without_a_ledger(tmp_path: Path) -> None:
    """Where nothing can be written down the items are gone all the same, and the error says both."""
    with pytest.raises(LedgerError, match=r"the list is in force \(1 items\), but the ledger does not say so"):
        run("takedown", "add", "i01", "--reason", "recalled")
    assert home.takedown_path().read_text() == "i01\n"


def test_keys_are_listed_rotated_and_retired(bundles: list[Bundle]) -> None:
    """A key that vouches for what is served is kept unless somebody insists."""
    rotated = ask("keys", "rotate")
    listed = ask("keys", "list")["keys"]
    with pytest.raises(UsageError, match=f"{bundles[0].bundle_id} is served on a verdict that {rotated['old']} signed"):
        run("keys", "retire", rotated["old"])
    run("keys", "retire", rotated["old"], "--force")

    assert [(row["key_id"], row["signs"]) for row in listed] == [(rotated["new"], True), (rotated["old"], False)]
    assert [row["key_id"] for row in ask("keys", "list")["keys"]] == [rotated["new"]]


def test_a_drill_without_a_server_says_what_it_needs(bundles: list[Bundle]) -> None:
    """It is a part of `rollback`, asks no reason and changes nothing."""
    run("promote", bundles[1].bundle_id, "--reason", "better", "--no-deploy")
    rows = Ledger().rows()

    with pytest.raises(ServingError, match="no server is ready to be drilled"):
        run("rollback", "drill")
    with pytest.raises(UsageError, match="has a reason"):
        run("rollback")
    assert Ledger().rows() == rows


def test_an_export_moves_and_verifies(bundles: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written here, checked from the file, shown from it, and taken over by an empty installation."""
    path = tmp_path / "export.jsonl"
    head = ask("ledger", "export", str(path))["head"]

    assert ask("ledger", "verify", "--file", str(path)) == {"rows": 1, "head": head, "torn": None, "revisions": []}
    assert bundles[0].bundle_id in run("ledger", "show", "--file", str(path))[1]

    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "another"))
    run("ledger", "import", str(path))
    assert ask("ledger", "verify")["head"] == head
