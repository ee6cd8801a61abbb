"""An experiment's moves are whole revisions in the ledger; a move that its plan does not allow is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.errors import InconclusiveError, LedgerError, PromotionError, SidrecError, UsageError, VerdictError
from sidrec.exclusion import Exclusion
from sidrec.release import trial
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.policy import Policy
from sidrec.release.promotion import approve, authorise, promote
from sidrec.release.standing import phases
from sidrec.release.trial import Design
from tests.release_world import gate, make_bundle, make_signed

PLAN = "a" * 64
MOVE: dict[str, Any] = {"why": "finer codes", "who": "ann"}
DESIGN = Design("codes", PLAN, "codes/aaaa", "champion", {"champion": 0.95, "challenger": 0.05})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return [make_bundle(tmp_path_factory.mktemp("bundle"), seed) for seed in range(2)]


@pytest.fixture
def champion(bundles: list[Bundle], verdicts: list[Path]) -> LedgerRow:
    return promote(bundles[0], verdicts[0], why="first", who="ann")


@pytest.fixture
def candidate(bundles: list[Bundle], verdicts: list[Path]) -> Mapping[str, trial.Candidate]:
    return {"challenger": (bundles[1], verdicts[1])}


def ramp(shares: dict[str, float], plan: str | None = PLAN) -> LedgerRow:
    return trial.ramp("codes", shares, plan=plan, **MOVE)


def shares(row: LedgerRow) -> dict[str, float]:
    return {arm.name: arm.share for arm in row.revision.arms}


@pytest.mark.usefixtures("champion")
def test_a_start_is_a_revision_with_the_plan_s_arms(
    bundles: list[Bundle], verdicts: list[Path], candidate: Mapping[str, trial.Candidate]
) -> None:
    """Champion and challenger with the plan's shares, salt and digest; both verdicts are bound, both may load."""
    row = trial.start(DESIGN, candidate, **MOVE)
    revision = row.revision

    assert (row.action, revision.experiment, revision.plan, revision.salt) == ("ramp", "codes", PLAN, "codes/aaaa")
    assert shares(row) == {"champion": 0.95, "challenger": 0.05}
    assert row.verdicts == {
        bundle.bundle_id: files.sha256_file(path) for bundle, path in zip(bundles, verdicts, strict=True)
    }
    assert PLAN[:12] in row.why
    assert [authorise(*pair, row).result for pair in zip(bundles, verdicts, strict=True)] == ["pass", "pass"]


@pytest.mark.usefixtures("champion")
def test_a_ramp_grows_and_never_shrinks(candidate: Mapping[str, trial.Candidate]) -> None:
    """5 to 20 to 50 % are rows; back to 20 % is refused with how many users it would move."""
    trial.start(DESIGN, candidate, **MOVE)
    grown = [ramp({"challenger": share}) for share in (0.2, 0.5)]
    with pytest.raises(UsageError, match=r"moves users who were exposed .*challenger 30.00%"):
        ramp({"challenger": 0.2})

    assert [shares(row)["challenger"] for row in grown] == [0.2, 0.5]
    assert [row.revision.revision for row in phases(Ledger().rows(), "codes")] == [2, 3, 4]


@pytest.mark.usefixtures("champion")
def test_a_start_says_what_clients_would_see_differently(
    bundles: list[Bundle], candidate: Mapping[str, trial.Candidate]
) -> None:
    """A challenger with wider semantic IDs is no silent change; a second person may let it be tried."""
    wide = bundles[1].folder / "decode.json"
    before = wide.read_text()
    try:
        wide.write_text(before.replace('"num_codes": 1', '"num_codes": 4'))
        with pytest.raises(PromotionError, match=r"\[schema\] .*SEMANTIC_ID has 4 codes an item, not 1"):
            trial.start(DESIGN, candidate, champion=bundles[0], **MOVE)
        with pytest.raises(UsageError, match="overruling schema takes a second person"):
            trial.start(DESIGN, candidate, champion=bundles[0], overrides=["schema"], **MOVE)
        row = trial.start(DESIGN, candidate, champion=bundles[0], overrides=["schema"], second_approver="bob", **MOVE)
    finally:
        wide.write_text(before)

    assert (row.overrides, row.second_approver, shares(row)["challenger"]) == (("schema",), "bob", 0.05)


@pytest.mark.usefixtures("champion")
def test_a_start_keeps_to_the_policy_s_churn_budget(
    bundles: list[Bundle], candidate: Mapping[str, trial.Candidate], tmp_path: Path
) -> None:
    """Users of an experiment see another codebook as those of a promotion do."""
    churned = tmp_path / "churned.json"
    make_signed(
        bundles[1],
        churned,
        [gate("codebook", check="churn", observed=0.2, threshold=0.3), gate("quality"), gate("serving")],
    )
    strict = Policy.model_validate({"churn_budget": 0.1})
    with pytest.raises(PromotionError, match=r"\[churn\] 20.0% of the traffic"):
        trial.start(DESIGN, {"challenger": (bundles[1], churned)}, policy=strict, **MOVE)


def test_a_stop_brings_back_what_was_there_before(
    champion: LedgerRow, candidate: Mapping[str, trial.Candidate]
) -> None:
    """The contents before the start, under a new number, without the experiment; its name is used up."""
    trial.start(DESIGN, candidate, **MOVE)
    row = trial.stop(why="slower", who="bob")
    with pytest.raises(LedgerError, match="has run already"):
        trial.start(DESIGN, candidate, **MOVE)

    assert (row.action, row.restores, row.revision.revision) == ("stop", champion.revision.revision, 3)
    assert row.revision.contents_sha256 == champion.revision.contents_sha256
    assert row.verdicts == champion.verdicts


@pytest.mark.usefixtures("champion")
def test_a_plan_that_changed_after_the_start_moves_nothing(candidate: Mapping[str, trial.Candidate]) -> None:
    """Both digests are named, and stopping is still possible."""
    trial.start(DESIGN, candidate, **MOVE)
    with pytest.raises(LedgerError, match="under the plan aaaaaaaaaaaa, the frozen one is now bbbbbbbbbbbb"):
        ramp({"challenger": 0.2}, plan="b" * 64)

    assert trial.stop(**MOVE).action == "stop"


@pytest.mark.usefixtures("champion")
def test_one_experiment_at_a_time(candidate: Mapping[str, trial.Candidate]) -> None:
    """Another one is told which runs."""
    trial.start(DESIGN, candidate, **MOVE)
    other = Design("beams", PLAN, "beams/aaaa", "champion", DESIGN.shares)

    with pytest.raises(LedgerError, match="experiment codes runs"):
        trial.start(other, candidate, **MOVE)


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("gates", "options", "error", "message"),
    [
        ("fail", {}, VerdictError, "quality says fail"),
        ("fail", {"accept_inconclusive": True, "second_approver": "bob"}, VerdictError, "fail"),
        ("inconclusive", {}, InconclusiveError, "inconclusive"),
        ("inconclusive", {"accept_inconclusive": True, "second_approver": "Ann"}, UsageError, "somebody else"),
        ("pass", {"why": " "}, UsageError, "has a reason"),
        ("pass", {"who": ""}, UsageError, "has an author"),
    ],
)
def test_a_challenger_is_denied_by_default(
    bundles: list[Bundle], tmp_path: Path, gates: Any, options: Any, error: type[SidrecError], message: str
) -> None:
    """A verdict that does not pass, or a move without a name or a reason, writes nothing."""
    verdict = tmp_path / "other.json"
    make_signed(bundles[1], verdict, [gate("codebook"), gate("quality", gates), gate("serving")])
    with pytest.raises(error, match=message):
        trial.start(DESIGN, {"challenger": (bundles[1], verdict)}, **(MOVE | options))

    assert len(Ledger().rows()) == 1


@pytest.mark.usefixtures("champion")
def test_two_people_may_try_what_is_inconclusive(bundles: list[Bundle], tmp_path: Path) -> None:
    """Their names stay, in every later step too, and a server may load it."""
    verdict = tmp_path / "other.json"
    make_signed(bundles[1], verdict, [gate("codebook"), gate("quality", "inconclusive"), gate("serving")])
    trial.start(
        DESIGN,
        {"challenger": (bundles[1], verdict)},
        accept_inconclusive=True,
        second_approver="bob",
        **MOVE,
    )
    row = ramp({"challenger": 0.2})

    assert row.second_approver == "bob"
    assert authorise(bundles[1], verdict, row).result == "inconclusive"


def test_what_cannot_start_says_why(candidate: Mapping[str, trial.Candidate]) -> None:
    """No champion, no bundle for an arm, nothing to ramp or to stop."""
    with pytest.raises(LedgerError, match="nothing was promoted yet"):
        trial.start(DESIGN, candidate, **MOVE)
    with pytest.raises(UsageError, match="bundles were given for none"):
        trial.start(DESIGN, {}, **MOVE)
    with pytest.raises(LedgerError, match="nothing was promoted yet"):
        trial.stop(**MOVE)


@pytest.mark.usefixtures("champion")
def test_what_does_not_run_is_neither_ramped_nor_stopped() -> None:
    """The message says what runs instead."""
    with pytest.raises(LedgerError, match="experiment codes does not run; none does"):
        ramp({"challenger": 0.2})
    with pytest.raises(LedgerError, match="no experiment runs"):
        trial.stop(**MOVE)


@pytest.mark.usefixtures("champion")
def test_only_what_runs_is_stopped(candidate: Mapping[str, trial.Candidate]) -> None:
    """Stopping another one by name is refused; by its own name it stops."""
    trial.start(DESIGN, candidate, **MOVE)
    with pytest.raises(LedgerError, match="experiment beams does not run; codes does"):
        trial.stop("beams", **MOVE)

    assert trial.stop("codes", **MOVE).action == "stop"


@pytest.mark.usefixtures("champion")
def test_a_challenger_without_a_share_is_no_running_experiment(candidate: Mapping[str, trial.Candidate]) -> None:
    """One that waits at 0 % is in nobody's way: the experiment starts."""
    waiting = Design("waiting", PLAN, "waiting", "champion", {"champion": 1.0, "challenger": 0.0})
    trial.start(waiting, candidate, **MOVE)

    assert shares(trial.start(DESIGN, candidate, **MOVE)) == {"champion": 0.95, "challenger": 0.05}


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("asked", "message"),
    [({"codes": 0.2}, "no challenger is called codes"), ({"challenger": 1.2}, "sum to at most 1")],
)
def test_a_ramp_keeps_to_the_arms(
    asked: dict[str, float], message: str, candidate: Mapping[str, trial.Candidate]
) -> None:
    """Another arm, or more than everybody, is a wrong call."""
    trial.start(DESIGN, candidate, **MOVE)

    with pytest.raises(UsageError, match=message):
        ramp(asked)


@pytest.mark.usefixtures("champion")
def test_an_experiment_keeps_its_part_of_everybody(candidate: Mapping[str, trial.Candidate]) -> None:
    """The revision has the plan's exclusion, at the start and after a ramp."""
    piece = Exclusion(group="checkout", low=0.0, high=0.5)
    design = Design("codes", PLAN, "codes/aaaa", "champion", DESIGN.shares, exclusion=piece)
    rows = [trial.start(design, candidate, **MOVE), ramp({"challenger": 0.2})]

    assert [row.revision.exclusion for row in rows] == [piece, piece]


@pytest.mark.usefixtures("champion")
def test_two_people_start_and_ramp_where_the_policy_says_so(
    bundles: list[Bundle], verdicts: list[Path], candidate: Mapping[str, trial.Candidate]
) -> None:
    """Each only asks until somebody else approves it; the author cannot, and nothing runs before."""
    policy = Policy(two_person=True)
    known = {bundle.bundle_id: (bundle, path) for bundle, path in zip(bundles, verdicts, strict=True)}
    looked_at = []

    def bundle_of(name: str) -> Bundle:
        looked_at.append(name)
        return known[name][0]

    def approved(who: str) -> LedgerRow:
        return approve(None, why="looked", who=who, bundle_of=bundle_of, verdict_of=lambda name, _: known[name][1])

    asked = trial.start(DESIGN, candidate, policy=policy, **MOVE)
    with pytest.raises(LedgerError, match="does not run"):
        ramp({"challenger": 0.2})
    with pytest.raises(UsageError, match="nobody approves what they asked for"):
        approved("ann")
    started = approved("bob")
    waits = trial.ramp("codes", {"challenger": 0.2}, plan=PLAN, policy=policy, **MOVE)
    before = Ledger().desired()
    grown = approved("bob")

    assert not asked.decides
    assert not waits.decides
    assert looked_at == [bundles[1].bundle_id]
    assert (shares(started)["challenger"], shares(grown)["challenger"]) == (0.05, 0.2)
    assert before == started.revision
    assert [row.seq for row in phases(Ledger().rows(), "codes")] == [started.seq, grown.seq]
