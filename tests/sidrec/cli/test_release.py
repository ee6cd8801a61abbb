"""The release commands do what they say, and say what they did, to people and to scripts."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from serving import registry
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.cli import bundles as bundle_commands
from sidrec.cli import ledger as ledger_commands
from sidrec.cli import release
from sidrec.errors import (
    BundleError,
    CheckFailedError,
    InconclusiveError,
    LedgerError,
    SidrecError,
    UsageError,
    VerdictError,
)
from sidrec.files import write_text_atomic
from sidrec.release.ledger import Ledger
from sidrec.release.revision import single_arm
from tests.release_world import gate, make_bundle, make_signed

INCONCLUSIVE = [gate("codebook"), gate("quality", "inconclusive"), gate("serving")]


@pytest.fixture(autouse=True)
def actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_ACTOR", "ann")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    """Three registered bundles, oldest first; the newest one's verdict is inconclusive."""
    made = [make_bundle(tmp_path / str(seed), seed) for seed in range(3)]
    for number, bundle in enumerate(made):
        path = tmp_path / f"{number}.json"
        make_signed(bundle, path, INCONCLUSIVE if number == 2 else None)
        registry.register(bundle.folder, path)
    return made


def call(*arguments: str) -> Result:
    app = typer.Typer()
    for module in (bundle_commands, ledger_commands, release):
        module.mount(app)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ask(*arguments: str) -> Any:
    """Return what a command prints with --json."""
    return json.loads(call(*arguments, "--json").stdout)


def refused(error: type[SidrecError], match: str, *arguments: str) -> SidrecError:
    before = Ledger().rows()
    with pytest.raises(error, match=match) as caught:
        call(*arguments)
    assert Ledger().rows() == before
    return caught.value


def test_list_shows_newest_first_with_result_and_role(bundles: list[Bundle]) -> None:
    """Each candidate has its verdict's result; the champion is marked once there is one."""
    before = ask("bundle", "list")["bundles"]
    call("promote", bundles[0].bundle_id, "--reason", "good", "--no-deploy")
    after = ask("bundle", "list")["bundles"]
    shown = call("bundle", "list").stdout

    assert [row["bundle_id"] for row in before] == [bundle.bundle_id for bundle in reversed(bundles)]
    assert [row["result"] for row in before] == ["inconclusive", "pass", "pass"]
    assert [row["champion"] for row in before] == [False, False, False]
    assert [row["champion"] for row in after] == [False, False, True]
    assert all(bundle.bundle_id in shown for bundle in bundles)


def test_an_empty_house_says_what_to_do_next() -> None:
    """Before anything was registered or promoted, the lists are empty and name the next command."""
    assert ask("bundle", "list") == {"bundles": []}
    assert ask("ledger", "show")["rows"] == []
    assert "sidrec run" in call("bundle", "list").stdout
    assert "sidrec promote --first" in call("ledger", "show").stdout
    assert "nothing was live" in call("ledger", "live").stdout


def test_show_prints_the_verdict_gate_by_gate(bundles: list[Bundle]) -> None:
    """The screen has every gate, the metrics, the sentence and the next command; first digits are enough."""
    shown = call("bundle", "show", bundles[0].bundle_id[:9]).stdout
    value = ask("bundle", "show", bundles[0].bundle_id)

    assert all(name in shown for name in ("codebook", "quality", "serving", "ndcg@10 0.2500"))
    assert f"Pass: {bundles[0].bundle_id}" in shown
    assert f"sidrec promote {bundles[0].bundle_id}" in shown
    assert value["verdict"]["result"] == "pass"
    assert value["sha256"] == bundles[0].sha256


def test_show_offers_no_promotion_of_what_did_not_pass(bundles: list[Bundle]) -> None:
    """An inconclusive bundle is shown without the command that would be refused."""
    assert "next: sidrec promote" not in call("bundle", "show", bundles[2].bundle_id).stdout


def test_verify_checks_bytes_and_verdict(bundles: list[Bundle]) -> None:
    """A sound bundle verifies by id and by folder; a changed byte is named."""
    by_id = ask("bundle", "verify", bundles[0].bundle_id)
    by_folder = ask("bundle", "verify", str(bundles[0].folder))
    weights = registry.bundle_folder(bundles[0].bundle_id) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")

    assert (by_id["verdict"], by_folder["verdict"]) == ("pass", None)
    assert by_id["sha256"] == by_folder["sha256"] == bundles[0].sha256
    error = refused(BundleError, r"weights\.safetensors", "bundle", "verify", bundles[0].bundle_id)
    assert error.evidence == str(weights)


def test_first_takes_the_newest_that_passed_and_says_so(bundles: list[Bundle]) -> None:
    """Without an id, --first names its choice before it makes it; the inconclusive newest is passed over."""
    shown = call("promote", "--first", "--reason", "first bundle", "--no-deploy").stdout
    [row] = Ledger().rows()

    assert shown.startswith(f"first promotion: {bundles[1].bundle_id} ")
    assert f"Pass: {bundles[1].bundle_id}" in shown
    assert (row.bundle, row.who, row.why) == (bundles[1].bundle_id, "ann", "first bundle")
    refused(LedgerError, "1 rows", "promote", "--first", "--reason", "again", "--no-deploy")


def test_promote_prints_one_object_for_scripts(bundles: list[Bundle]) -> None:
    """--json is one JSON object, with the revision, the row and its hash."""
    value = ask("promote", bundles[0].bundle_id, "--reason", "good", "--no-deploy")

    assert (value["action"], value["revision"], value["bundle_id"]) == ("promote", 1, bundles[0].bundle_id)
    assert (value["row"], value["hash"]) == (1, Ledger().verify().head)
    assert value["deployment"] is None


def test_promote_refuses_what_it_must(bundles: list[Bundle], tmp_path: Path) -> None:
    """No id, an unknown id, an inconclusive verdict: refused, with the exit status of its kind."""
    no_id = refused(UsageError, "which bundle", "promote", "--reason", "x", "--no-deploy")
    unknown = refused(BundleError, "no bundle", "promote", "b-ffffffffffff", "--reason", "x", "--no-deploy")
    undecided = refused(
        InconclusiveError, "quality says", "promote", bundles[2].bundle_id, "--reason", "x", "--no-deploy"
    )

    assert (no_id.exit_code, unknown.exit_code, undecided.exit_code) == (2, 1, 3)
    assert undecided.next_step is not None
    assert "--accept-inconclusive --second-approver" in undecided.next_step
    assert call("promote", bundles[0].bundle_id).exit_code == 2  # no --reason


def test_an_inconclusive_one_goes_with_two_names(bundles: list[Bundle]) -> None:
    """Flag and second approver together promote it, and both names are shown."""
    options = ("--accept-inconclusive", "--second-approver", "bob", "--reason", "new items", "--no-deploy")
    call("promote", bundles[2].bundle_id, *options)

    assert "ann + bob" in call("ledger", "show").stdout


def test_first_without_a_passing_candidate_promotes_nothing(tmp_path: Path) -> None:
    """With only an inconclusive candidate, --first picks none."""
    bundle = make_bundle(tmp_path)
    make_signed(bundle, tmp_path / "v.json", INCONCLUSIVE)
    registry.register(bundle.folder, tmp_path / "v.json")

    refused(VerdictError, "no registered bundle has", "promote", "--first", "--reason", "x", "--no-deploy")


def test_rollback_goes_back_and_says_to_what(bundles: list[Bundle]) -> None:
    """The new revision has the old contents; with nothing left, it says so and changes nothing."""
    for bundle in bundles[:2]:
        call("promote", bundle.bundle_id, "--reason", "good", "--no-deploy")
    shown = call("rollback", "--reason", "bad answers", "--no-deploy").stdout
    desired = Ledger().desired()

    assert desired is not None
    assert (desired.revision, desired.bundle_ids) == (3, (bundles[0].bundle_id,))
    assert "the contents of revision 1" in shown
    refused(LedgerError, "no earlier revision", "rollback", "--reason", "worse", "--no-deploy")


def test_without_a_server_deploying_prepares_the_repository(bundles: list[Bundle]) -> None:
    """Promotion leaves the revision in Triton's repository, and says that `sidrec serve` does the rest."""
    value = ask("promote", bundles[0].bundle_id, "--reason", "good")

    assert value["deployment"]["live"] is False
    assert "sidrec serve" in value["deployment"]["sentence"]
    assert [row.action for row in Ledger().rows()] == ["promote"]


def test_a_promotion_whose_deployment_fails_says_both(bundles: list[Bundle]) -> None:
    """The ledger has the row, the server does not follow: the error says so and what to do."""
    stranger = single_arm(1, bundles[1])
    write_text_atomic(home.triton_repository_dir() / "recommend" / "1" / "revision.json", stranger.model_dump_json())

    with pytest.raises(CheckFailedError, match=r"revision 1 is in the ledger \(row 1\) but is not deployed") as failed:
        call("promote", bundles[0].bundle_id, "--reason", "good")
    assert failed.value.next_step is not None
    assert [row.action for row in Ledger().rows()] == ["promote"]


def test_ledger_verify_prints_the_head_and_checks_one_noted_earlier(bundles: list[Bundle]) -> None:
    """A head noted elsewhere must still be in the chain; a rewritten history has another."""
    call("promote", bundles[0].bundle_id, "--reason", "good", "--no-deploy")
    head = ask("ledger", "verify")["head"]
    call("promote", bundles[1].bundle_id, "--reason", "better", "--no-deploy")

    assert ask("ledger", "verify", "--head", head)["rows"] == 2
    refused(LedgerError, "history was rewritten", "ledger", "verify", "--head", "f" * 64)


def test_ledger_verify_names_the_broken_row(bundles: list[Bundle]) -> None:
    """An edited reason is found."""
    call("promote", bundles[0].bundle_id, "--reason", "good", "--no-deploy")
    with sqlite3.connect(Ledger().path) as connection:
        connection.execute("DROP TRIGGER sidrec_ledger_no_update")
        connection.execute("""UPDATE sidrec_ledger SET body = replace(body, '"good"', '"best"')""")
    connection.close()

    with pytest.raises(LedgerError, match="row 1 of the ledger is broken"):
        call("ledger", "verify")


def test_live_at_a_time(bundles: list[Bundle]) -> None:
    """`ledger live --at` answers for any time; a time without an offset is UTC."""
    call("promote", bundles[0].bundle_id, "--reason", "good", "--no-deploy")
    desired = Ledger().desired()
    assert desired is not None
    row = Ledger().record_live(desired, who="deploy", why="…")
    naive = row.time.replace(tzinfo=None).isoformat()

    assert ask("ledger", "live")["live"]["revision"]["revision"] == 1
    assert ask("ledger", "live", "--at", naive)["live"]["seq"] == row.seq
    assert ask("ledger", "live", "--at", "2001-01-01")["live"] is None
    assert "live since" in call("ledger", "live").stdout
    refused(UsageError, "no ISO time", "ledger", "live", "--at", "yesterday")


def test_the_author_is_the_account_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SIDREC_ACTOR` wins; without it, the name of the account."""
    import getpass

    named = release.actor()
    monkeypatch.delenv("SIDREC_ACTOR")

    assert named == "ann"
    assert release.actor() == getpass.getuser()
