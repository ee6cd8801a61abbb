"""Promotion denies by default; a rollback goes back to what was good."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidrec import files
from sidrec.bundle import Bundle
from sidrec.errors import InconclusiveError, LedgerError, SidrecError, UsageError, VerdictError
from sidrec.release.ledger import Ledger, LedgerRow
from sidrec.release.promotion import authorise, promote, rollback
from tests.release_world import gate, make_bundle, make_signed

INCONCLUSIVE = [gate("codebook"), gate("quality", "inconclusive"), gate("serving")]
FAILING = [gate("codebook"), gate("quality", "fail"), gate("serving")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return [make_bundle(tmp_path_factory.mktemp("bundle"), seed) for seed in range(3)]


class Story:
    """Three bundles a, b, c and what happened to them, told in one line."""

    def __init__(self, bundles: list[Bundle], verdicts: list[Path]) -> None:
        self.bundles, self.verdicts = bundles, verdicts
        self.names = {bundle.bundle_id: name for bundle, name in zip(bundles, "abc", strict=True)}

    def tell(self, text: str) -> None:
        """`a` promotes a, `!` the desired revision goes live, `<` rolls back."""
        for letter in text:
            if letter == "<":
                rollback(why="bad answers", who="ann")
            elif letter == "!":
                desired = Ledger().desired()
                assert desired is not None
                Ledger().record_live(desired, who="deploy", why="…")
            else:
                number = "abc".index(letter)
                promote(self.bundles[number], self.verdicts[number], why="better", who="ann")

    @property
    def desired(self) -> str:
        revision = Ledger().desired()
        assert revision is not None
        return self.names[revision.bundle_ids[0]]


@pytest.fixture
def story(bundles: list[Bundle], verdicts: list[Path]) -> Story:
    return Story(bundles, verdicts)


def test_a_promotion_is_a_row(bundles: list[Bundle], verdicts: list[Path]) -> None:
    """The row says who, why, which bundle, and binds the very verdict file."""
    row = promote(bundles[0], verdicts[0], why=" first of its kind ", who="ann", first=True)

    assert (row.action, row.who, row.why, row.bundle) == ("promote", "ann", "first of its kind", bundles[0].bundle_id)
    assert row.verdicts == {bundles[0].bundle_id: files.sha256_file(verdicts[0])}
    assert row.revision.arms[0].bundle.sha256 == bundles[0].sha256
    assert Ledger().desired() == row.revision


def test_first_is_for_an_empty_ledger(story: Story) -> None:
    """`first` is refused once there is any row, even after a rollback or with another bundle."""
    story.tell("a")

    with pytest.raises(LedgerError, match="1 rows"):
        promote(story.bundles[1], story.verdicts[1], why="again", who="ann", first=True)
    assert story.desired == "a"


def refused(bundle: Bundle, verdict: Path, error: type[SidrecError], match: str, **options: object) -> None:
    """Assert that a promotion is refused and leaves no trace."""
    with pytest.raises(error, match=match):
        promote(bundle, verdict, **({"why": "please", "who": "ann"} | options))  # type: ignore[arg-type]
    assert Ledger().rows() == []


def test_denied_by_default(bundles: list[Bundle], verdicts: list[Path], tmp_path: Path) -> None:
    """No verdict, another bundle's, an edited one, an expired one, a failing one: nothing is written."""
    bundle = bundles[0]
    refused(bundle, tmp_path / "none.json", VerdictError, "no verdict")
    refused(bundle, verdicts[1], VerdictError, "is about")
    edited = tmp_path / "edited.json"
    make_signed(bundle, edited, FAILING)
    refused(bundle, edited, VerdictError, "quality says fail")
    edited.write_text(edited.read_text().replace('"fail"', '"pass"'))
    refused(bundle, edited, VerdictError, "altered")
    make_signed(bundle, edited, now=datetime.now(UTC) - timedelta(days=31), fresh_days=30)
    refused(bundle, edited, VerdictError, "expired")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"why": "  "}, "has a reason"),
        ({"who": ""}, "has an author"),
        ({"second_approver": "Ann "}, "somebody else"),
        ({"second_approver": " "}, "somebody else"),
        ({"who": "Ann", "second_approver": "ann"}, "somebody else"),
    ],
)
def test_a_move_has_an_author_and_a_reason(
    bundles: list[Bundle], verdicts: list[Path], options: dict[str, str], match: str
) -> None:
    """No reason, no author, or an author who approves himself: refused."""
    refused(bundles[0], verdicts[0], UsageError, match, **options)


def test_an_inconclusive_verdict_needs_two_people(bundles: list[Bundle], verdicts: list[Path]) -> None:
    """Neither the flag alone nor a second approver alone promotes it; both do, and both names stay."""
    bundle, path = bundles[0], verdicts[0]
    make_signed(bundle, path, INCONCLUSIVE)
    refused(bundle, path, InconclusiveError, "quality says inconclusive")
    refused(bundle, path, InconclusiveError, "inconclusive", accept_inconclusive=True)
    refused(bundle, path, InconclusiveError, "inconclusive", second_approver="bob")
    refused(bundle, path, UsageError, "somebody else", accept_inconclusive=True, second_approver="ann")

    row = promote(bundle, path, why="new items", who="ann", accept_inconclusive=True, second_approver="bob")

    assert (row.who, row.second_approver) == ("ann", "bob")


def test_accepting_the_inconclusive_accepts_no_failure(bundles: list[Bundle], verdicts: list[Path]) -> None:
    """Two people cannot promote what failed."""
    make_signed(bundles[0], verdicts[0], FAILING)

    refused(bundles[0], verdicts[0], VerdictError, "fail", accept_inconclusive=True, second_approver="bob")


def test_promoting_what_is_asked_for_already_is_refused(story: Story) -> None:
    """A second promotion of the champion is a mistake, and says what to do instead."""
    story.tell("a")

    with pytest.raises(LedgerError, match="already what revision 1 asks for") as error:
        story.tell("a")
    assert error.value.next_step == "sidrec deploy"


@pytest.mark.parametrize(
    ("told", "desired"),
    [
        ("a!b!<", "a"),
        ("a!b!c!<", "b"),
        ("a!b!c!<!<", "a"),  # never back to c, which the first rollback fled from
        ("a!b!<!c!<", "a"),  # b was left for good
        ("ab<", "a"),  # nothing was ever deployed: the one before
        ("a!bc!<", "a"),  # b never came up, so it is not good
        ("a!bc<", "a"),
        ("a!ba<", "b"),  # never to the contents that are asked for now
        ("a!b!a!<", "b"),
        ("a!b!a!<!<", "a"),
    ],
)
def test_rollback_goes_to_the_last_good_one(story: Story, told: str, desired: str) -> None:
    """A rollback asks for the newest earlier contents that served, and makes a new revision of them."""
    story.tell(told)
    rows = Ledger().rows()
    last = rows[-1]
    [restored] = [row for row in rows if row.action != "live" and row.revision.revision == last.restores]

    assert story.desired == desired
    assert last.action == "rollback"
    assert last.revision.revision == max(row.revision.revision for row in rows[:-1]) + 1
    assert last.revision.contents_sha256 == restored.revision.contents_sha256
    assert last.verdicts == restored.verdicts


@pytest.mark.parametrize("told", ["", "a", "a!", "a!b!<!", "a!bc!<", "a!bc!<!"])
def test_rollback_says_when_there_is_nothing_to_go_back_to(story: Story, told: str) -> None:
    """With no earlier revision left, nothing is written."""
    story.tell(told)
    before = Ledger().rows()

    with pytest.raises(LedgerError, match="no earlier revision"):
        rollback(why="bad answers", who="ann")
    assert Ledger().rows() == before


def test_a_rollback_asks_no_old_verdict_for_its_age(bundles: list[Bundle], verdicts: list[Path]) -> None:
    """What was promoted while fresh can be gone back to after its verdict expired."""
    long_ago = datetime.now(UTC) - timedelta(days=400)
    make_signed(bundles[0], verdicts[0], now=long_ago)
    promote(bundles[0], verdicts[0], why="then", who="ann", now=long_ago + timedelta(days=1))
    promote(bundles[1], verdicts[1], why="now", who="ann")

    row = rollback(why="bad answers", who="ann")

    assert row.bundle == bundles[0].bundle_id
    assert authorise(bundles[0], verdicts[0], row).bundle_id == bundles[0].bundle_id


def test_a_server_may_load_what_the_ledger_asks_for(bundles: list[Bundle], verdicts: list[Path]) -> None:
    """Authorised: the bundle of the row, with the verdict that the row names."""
    row = promote(bundles[0], verdicts[0], why="good", who="ann")

    assert authorise(bundles[0], verdicts[0], row).result == "pass"


def deny(bundle: Bundle, verdict: Path, row: LedgerRow, match: str) -> None:
    with pytest.raises(VerdictError, match=match):
        authorise(bundle, verdict, row)


def test_a_server_may_load_nothing_else(bundles: list[Bundle], verdicts: list[Path], tmp_path: Path) -> None:
    """Another bundle, another verdict on the same bundle, a failing one, or an edited row: refused."""
    row = promote(bundles[0], verdicts[0], why="good", who="ann")
    deny(bundles[1], verdicts[1], row, "does not ask for")
    deny(bundles[0], tmp_path / "none.json", row, "no verdict")
    later = tmp_path / "later.json"
    make_signed(bundles[0], later, now=datetime.now(UTC) + timedelta(seconds=5))
    deny(bundles[0], later, row, "not the verdict that row 1")
    make_signed(bundles[0], later, FAILING)
    forged = row.model_copy(update={"verdicts": {bundles[0].bundle_id: files.sha256_file(later)}})
    deny(bundles[0], later, forged, "fail")
    make_signed(bundles[0], later, INCONCLUSIVE)
    forged = row.model_copy(update={"verdicts": {bundles[0].bundle_id: files.sha256_file(later)}})
    with pytest.raises(InconclusiveError):
        authorise(bundles[0], later, forged)
