"""A bundle reaches everybody by stages, and each refusal says why and what to do."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from sidrec.bundle import Bundle
from sidrec.errors import LedgerError, PromotionError, SidrecError, UsageError, VerdictError
from sidrec.release import promotion
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.policy import Policy, load_policy
from sidrec.release.promotion import approve, authorise, pending, promote
from sidrec.release.rollback import rollback
from sidrec.release.stages import without_arm
from tests.postgres_world import new_database
from tests.release_world import gate, make_bundle, make_signed


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return [make_bundle(tmp_path_factory.mktemp("bundle"), seed) for seed in range(3)]


@pytest.fixture
def ask(bundles: list[Bundle], tmp_path: Path) -> Callable[..., LedgerRow]:
    """Promote one of three bundles, a champion unless told otherwise; the first one is champion already."""

    def promote_one(number: int, **options: Any) -> LedgerRow:
        path = tmp_path / f"{number}.json"
        if not path.exists():
            make_signed(bundles[number], path)
        asked = {"why": "better", "who": "ann", "policy": Policy(), **options}
        return promote(bundles[number], path, **asked)

    promote_one(0)
    return promote_one


def live() -> LedgerRow:
    desired = Ledger().desired()
    assert desired is not None
    return Ledger().record_live(desired, who="deploy", why="…")


def shares(row: LedgerRow) -> dict[str, float]:
    return {arm.name: arm.share for arm in row.revision.arms}


def test_a_canary_is_the_champion_and_a_small_share(ask: Callable[..., LedgerRow], bundles: list[Bundle]) -> None:
    """Five in a hundred users, in an experiment of the canary's own name, under the champion's budget."""
    champion = Ledger().desired()
    row = ask(1, to="canary")

    assert champion is not None
    assert (row.stage, row.bundle, row.schema_version) == ("canary", bundles[1].bundle_id, 2)
    assert shares(row) == {"champion": 0.95, "canary": 0.05}
    assert row.revision.experiment == row.revision.salt == f"canary-{bundles[1].bundle_id}"
    assert (row.revision.deadline_ms, row.revision.clock) == (champion.deadline_ms, champion.clock)
    assert set(row.verdicts) == {bundles[0].bundle_id, bundles[1].bundle_id}
    assert Ledger().desired() == row.revision


def test_a_shadow_answers_nobody_and_a_challenger_whom_it_is_given(ask: Callable[..., LedgerRow]) -> None:
    """A shadow leaves the arms as they are; a challenger has no share unless one is named."""
    shadow = ask(1, to="shadow")
    challenger = ask(2, to="challenger")

    assert shares(shadow) == {"champion": 1.0}
    assert shadow.revision.shadow is not None
    assert shares(challenger) == {"champion": 1.0, "challenger": 0.0}
    assert challenger.revision.shadow == shadow.revision.shadow
    assert set(challenger.verdicts) == set(challenger.revision.bundle_ids)


@pytest.mark.parametrize(
    ("before", "number", "options", "said"),
    [
        ([], 0, {"to": "canary"}, "is arm champion of revision 1 already"),
        ([(1, "canary")], 1, {"to": "canary"}, "is arm canary of revision 2 already"),
        ([(1, "canary")], 2, {"to": "canary"}, "experiment canary-b-.* runs"),
        ([(1, "canary")], 2, {"to": "challenger"}, "experiment canary-b-.* runs"),
        ([], 1, {"to": "shadow", "share": 0.1}, "a shadow has no share"),
        ([], 1, {"to": "canary", "share": 0.6}, "no share of a canary"),
        ([], 1, {"to": "canary", "share": 0.0}, "no share of a canary"),
        ([], 1, {"overrides": ["luck"]}, "no check is called luck"),
    ],
)
def test_a_place_that_cannot_be_had_is_refused(
    ask: Callable[..., LedgerRow], before: list[tuple[int, str]], number: int, options: dict[str, Any], said: str
) -> None:
    """The message names what is in the way, and nothing is written."""
    for earlier, place in before:
        ask(earlier, to=place)
    rows = Ledger().rows()

    with pytest.raises(UsageError, match=said):
        ask(number, **options)
    assert Ledger().rows() == rows


def test_nothing_stands_beside_nothing(bundles: list[Bundle], tmp_path: Path) -> None:
    """The first bundle of an installation can only be champion."""
    make_signed(bundles[0], tmp_path / "v.json")

    with pytest.raises(UsageError, match="nothing answers yet"):
        promote(bundles[0], tmp_path / "v.json", why="x", who="ann", to="canary")


def test_a_canary_becomes_champion_after_its_hours(ask: Callable[..., LedgerRow]) -> None:
    """Hours count while it is live; what is asked for too early says how long it has been."""
    ask(1, to="canary")
    with pytest.raises(PromotionError, match=r"\[dwell\] .* is not live as a canary, the policy asks for 24 h"):
        ask(1)
    began = live().time
    with pytest.raises(PromotionError, match=r"has been live as a canary for 23\.0 h"):
        ask(1, now=began + timedelta(hours=23))

    row = ask(1, now=began + timedelta(hours=25))

    assert shares(row) == {"champion": 1.0}
    assert row.revision.experiment is None


def test_a_second_person_may_overrule_a_check_by_name(ask: Callable[..., LedgerRow]) -> None:
    """Neither the override nor the second person alone is enough; the row keeps both."""
    ask(1, to="canary")
    with pytest.raises(UsageError, match="overruling dwell takes a second person"):
        ask(1, overrides=["dwell"])
    with pytest.raises(PromotionError, match="dwell"):
        ask(1, second_approver="bob")

    row = ask(1, overrides=["dwell", "churn"], second_approver="bob")

    assert (row.overrides, row.second_approver) == (("dwell",), "bob")


def halt(number_of_arm: str = "canary") -> LedgerRow:
    with Ledger().writing() as writer:
        base = writer.rows[-1].revision
        arm = next(arm for arm in base.arms if arm.name == number_of_arm)
        return writer.append(
            "stop",
            who="guard",
            why="its answers are 40 % cold",
            revision=without_arm(base, number_of_arm, base.revision + 1),
            verdicts=writer.rows[-1].verdicts,
            bundle=arm.bundle.bundle_id,
            measured={"cold": 0.4},
        )


def test_a_canary_that_was_stopped_is_not_promoted(ask: Callable[..., LedgerRow]) -> None:
    """What a guardrail stopped needs another try as a canary; its hours start again."""
    ask(1, to="canary")
    began = live().time
    row = halt()
    live()

    assert shares(row) == {"champion": 1.0}
    with pytest.raises(PromotionError, match=r"\[halted\] its canary was stopped .* its answers are 40 % cold"):
        ask(1, now=began + timedelta(hours=48))

    ask(1, to="canary")
    with pytest.raises(PromotionError, match="dwell"):
        ask(1, now=datetime.now(UTC) + timedelta(hours=23))


def test_a_policy_may_ask_for_a_canary(ask: Callable[..., LedgerRow]) -> None:
    """With `require_canary` a bundle never goes straight to everybody."""
    with pytest.raises(PromotionError, match="was never a canary"):
        ask(1, policy=Policy.model_validate({"require_canary": True}))


def test_what_clients_see_differently_is_said(ask: Callable[..., LedgerRow], bundles: list[Bundle]) -> None:
    """Another width of semantic IDs is no silent change."""
    wide = bundles[1].folder / "decode.json"
    before = wide.read_text()
    try:
        wide.write_text(before.replace('"num_codes": 1', '"num_codes": 4'))
        with pytest.raises(PromotionError, match=r"\[schema\] .*SEMANTIC_ID has 4 codes an item, not 1"):
            ask(1, champion=bundles[0])
        assert ask(1, champion=bundles[0], to="shadow").stage == "shadow"  # nobody sees a shadow
    finally:
        wide.write_text(before)


def test_churn_and_the_wrong_champion_are_said(
    ask: Callable[..., LedgerRow], bundles: list[Bundle], tmp_path: Path
) -> None:
    """A policy's own churn budget counts, and a verdict against another champion where the policy asks for this one."""
    gates = [gate("codebook", check="churn", observed=0.2, threshold=0.3), gate("quality"), gate("serving")]
    make_signed(bundles[1], tmp_path / "1.json", gates)
    strict = Policy.model_validate({"churn_budget": 0.1, "judged_against_champion": True})

    with pytest.raises(PromotionError) as caught:
        ask(1, policy=strict)

    assert "[churn] 20.0% of the traffic would see another semantic ID, the policy's budget is 10.0%" in str(
        caught.value
    )
    assert "[champion] the verdict compared" in str(caught.value)
    assert "--override churn --override champion --second-approver" in str(caught.value.next_step)
    assert ask(1).stage is None  # the verdict's own gate let it pass


TWO = Policy.model_validate({"two_person": True, "pending_hours": 2})


def stand_behind(bundles: list[Bundle], tmp_path: Path, **options: Any) -> LedgerRow:
    given = {"number": None, "why": "read the verdict", "who": "bob", **options}
    return approve(
        given.pop("number"),
        **given,
        bundle_of=lambda bundle_id: next(one for one in bundles if one.bundle_id == bundle_id),
        verdict_of=lambda bundle_id, _: (
            tmp_path / f"{next(n for n, one in enumerate(bundles) if one.bundle_id == bundle_id)}.json"
        ),
    )


def test_with_two_people_a_promotion_waits(
    ask: Callable[..., LedgerRow], bundles: list[Bundle], tmp_path: Path
) -> None:
    """It is asked for, changes nothing, and counts once somebody else approved it."""
    asked = ask(1, policy=TWO, to="canary")
    before = Ledger().desired()

    assert asked.pending_until is not None
    assert before is not None
    assert before.bundle_ids == (bundles[0].bundle_id,)
    assert pending(Ledger().rows(), datetime.now(UTC)) == [asked]

    row = stand_behind(bundles, tmp_path)

    assert (row.action, row.approves, row.who, row.stage) == ("approve", asked.seq, "bob", "canary")
    assert Ledger().desired() == row.revision
    assert shares(row) == {"champion": 0.95, "canary": 0.05}
    assert pending(Ledger().rows(), datetime.now(UTC)) == []


@pytest.mark.parametrize(
    ("then", "options", "error", "said"),
    [
        ("", {"who": " Ann"}, UsageError, "nobody approves what they asked for"),
        ("", {"now": datetime.now(UTC) + timedelta(hours=3)}, LedgerError, "nothing waits"),
        ("", {"now": datetime.now(UTC) + timedelta(hours=3), "number": 2}, LedgerError, "could be approved until"),
        ("promote", {"number": 2}, LedgerError, "ann decided otherwise .promote, row 3. since row 2 asked"),
        ("approve", {"number": 2}, LedgerError, "carl approved it since row 2 asked"),
        ("ask", {}, LedgerError, "rows 2, 3 wait"),
        ("", {"number": 1}, LedgerError, "row 1 asks for no approval"),
        ("resign", {}, VerdictError, "not the verdict that row 2 names"),
    ],
)
def test_an_approval_is_refused(
    ask: Callable[..., LedgerRow],
    bundles: list[Bundle],
    tmp_path: Path,
    then: str,
    options: dict[str, Any],
    error: type[SidrecError],
    said: str,
) -> None:
    """By the author, too late, twice, of what was overtaken, of another verdict: each says which."""
    ask(1, policy=TWO)
    if then == "promote":
        ask(2)
    elif then == "approve":
        stand_behind(bundles, tmp_path, who="carl")
    elif then == "ask":
        ask(2, policy=TWO)
    elif then == "resign":
        make_signed(bundles[1], tmp_path / "1.json", now=datetime.now(UTC) + timedelta(seconds=1))
    rows = Ledger().rows()

    with pytest.raises(error, match=said):
        stand_behind(bundles, tmp_path, **options)
    assert Ledger().rows() == rows


def test_an_approver_stands_behind_an_inconclusive_verdict(
    ask: Callable[..., LedgerRow], bundles: list[Bundle], tmp_path: Path
) -> None:
    """A server loads it for the approval, and for what comes after it with the same verdict."""
    make_signed(bundles[1], tmp_path / "1.json", [gate("codebook"), gate("quality", "inconclusive"), gate("serving")])
    ask(1, policy=TWO, accept_inconclusive=True)
    row = stand_behind(bundles, tmp_path)
    later = ask(2, to="canary")

    assert authorise(bundles[1], tmp_path / "1.json", row).result == "inconclusive"
    assert authorise(bundles[1], tmp_path / "1.json", later, Ledger().rows()).result == "inconclusive"
    with pytest.raises(VerdictError):
        authorise(bundles[1], tmp_path / "1.json", later)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of each kind."""
    if request.param == "postgresql":
        url = new_database(request.getfixturevalue("server"), secrets.token_hex(8))
        monkeypatch.setenv("SIDREC_LEDGER_URL", url)


def test_of_two_promotions_at_once_one_wins_and_one_is_told(
    shared: None, ask: Callable[..., LedgerRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were checked against the same champion; the second would silently undo the first."""
    together = Barrier(2)
    check = promotion.check_verdict

    def checked(*arguments: Any, **options: Any) -> Any:
        together.wait(timeout=10)
        return check(*arguments, **options)

    monkeypatch.setattr(promotion, "check_verdict", checked)
    won: list[LedgerRow] = []
    told: list[SidrecError] = []

    def move(number: int) -> None:
        try:
            won.append(ask(number, who=f"person {number}"))
        except SidrecError as error:
            told.append(error)

    threads = [Thread(target=move, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [row], [error] = won, told
    assert isinstance(error, LedgerError)
    assert f"{row.who} decided something else meanwhile (row 2: promote {row.bundle})" in error.message
    assert Ledger().desired() == row.revision


@pytest.mark.parametrize(
    ("told", "back"),
    [
        ([(1, "canary")], 0),
        ([(1, "shadow")], 0),
        ([(1, "challenger")], 0),
        ([(1, "champion"), (2, "canary")], 1),
        ([(1, "champion"), (2, "canary"), "halt"], 0),
    ],
)
def test_rollback_leaves_an_experiment_in_one_go(
    ask: Callable[..., LedgerRow], bundles: list[Bundle], told: list[Any], back: int
) -> None:
    """It goes back to one whole bundle for everybody; after a halt, to the one before the present champion."""
    live()
    for one in told:
        if one == "halt":
            halt()
        else:
            ask(one[0], to=one[1])
        live()

    if (told, back) == ([(1, "challenger")], 0):
        # It answers nobody, and is no shadow: going back would be to before the champion.
        with pytest.raises(LedgerError, match="no earlier revision"):
            rollback(why="bad", who="ann")
        return
    row = rollback(why="bad", who="ann")

    assert shares(row) == {"champion": 1.0}
    assert row.revision.bundle_ids == (bundles[back].bundle_id,)
    assert row.revision.shadow is None


def test_two_people_at_the_same_alarm_go_back_once(ask: Callable[..., LedgerRow], bundles: list[Bundle]) -> None:
    """The second one is told who already did; `again` goes further all the same."""
    ask(1)
    ask(2)
    rollback(why="alarm", who="ann")
    with pytest.raises(LedgerError, match=r"ann rolled back \d s ago \(row 4, b-.*\): alarm"):
        rollback(why="alarm", who="bob")

    assert rollback(why="worse still", who="bob", again=True).bundle == bundles[0].bundle_id


def test_a_policy_is_a_file_without_unknown_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is the laptop's; a named one must exist; a misspelt rule is no rule left out."""
    assert load_policy() == Policy()
    monkeypatch.setenv("SIDREC_RELEASE_POLICY", str(tmp_path / "policy.yaml"))
    with pytest.raises(UsageError, match="no promotion policy"):
        load_policy()
    (tmp_path / "policy.yaml").write_text("two_persons: true\n")
    with pytest.raises(UsageError, match="two_persons"):
        load_policy()
    (tmp_path / "policy.yaml").write_text("two_person: true\nguardrails: {slow: 2}\n")

    assert load_policy().two_person
    assert load_policy().guardrails.slow == 2
