"""An experiment's phase is gathered from the logs as a hand count of them says."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from monitoring import experiment
from monitoring.experiment import Phase
from sidrec import home
from sidrec.errors import UsageError
from sidrec.exposure import Exposure
from sidrec.outcome import Outcome
from sidrec.release.revision import assign
from tests.experiment_world import plan
from tests.monitoring.drift_world import at, bought, exposed, write_exposures, write_outcomes
from tests.sidrec.release.test_revision import arms, revision

DAY = 86_400
MONDAY = date(2010, 11, 1)
REVISION = revision(
    revision=3,
    experiment="codes",
    arms=tuple(
        arm.model_copy(update={"name": name})
        for arm, name in zip(arms(0.5, 0.5), ("control", "treatment"), strict=True)
    ),
)
BUNDLES = {arm.name: arm.bundle.bundle_id for arm in REVISION.arms}


def shown(request: str, user: str, day: float, arm: str = "control", **changes: object) -> Exposure:
    values = {"arm": arm, "bundle_id": BUNDLES[arm], "experiment": "codes", "revision": 3, **changes}
    return exposed(request, user, at(MONDAY, int(day * DAY)), ["i1", "i2"], **values)


def took(user: str, item: str, day: float, request: str | None = None) -> Outcome:
    return bought(user, item, at(MONDAY, int(day * DAY)), request)


def gathered(exposures: list[Exposure], outcomes: list[Outcome], **changes: int) -> Phase:
    write_exposures(exposures)
    write_outcomes(outcomes)
    return experiment.gather(plan(), REVISION, home.exposures_dir(), home.outcomes_dir(), **changes)


def test_users_of_a_closed_window_are_counted_with_their_past() -> None:
    """Ann took one shown item and had bought twice before, once long ago; Bob is new; Cat's week is not over."""
    phase = gathered(
        [shown("r1", "ann", 0), shown("r2", "bob", 1, "treatment"), shown("r3", "cat", 5)],
        [took("ann", "i1", 2), took("ann", "i9", -3), took("ann", "i9", -40), took("dan", "i1", 9)],
    )
    columns = ("user_id", "arm", "hits", "past", "new_user", "foreign")

    assert phase.users.select(columns).rows() == [
        ("ann", "control", 1, 1, False, 0),
        ("bob", "treatment", 0, 0, True, 0),
    ]
    assert (phase.since, phase.until) == (at(MONDAY), at(MONDAY, 9 * DAY + 1))
    assert round(phase.days, 3) == 9
    assert not phase.simulated


def test_a_phase_ends_where_the_next_revision_begins() -> None:
    """Revision 2 came before and 4 after: only who was first exposed between them, and whose week closed, is a user."""
    phase = gathered(
        [
            shown("r0", "old", 0, revision=2),
            shown("r1", "old", 2),
            shown("r2", "ann", 2),
            shown("r3", "bob", 6),
            shown("r4", "ann", 10, "treatment", revision=4),
            shown("r5", "new", 20, revision=4),
        ],
        [],
    )

    assert phase.users.select("user_id", "arms").rows() == [("ann", 1)]
    assert (phase.since, phase.until) == (at(MONDAY, 2 * DAY), at(MONDAY, 10 * DAY))


def test_times_may_be_named() -> None:
    """Read as of the eighth day, from the second on."""
    rows = [shown("r0", "old", 0), shown("r1", "ann", 1), shown("r2", "bob", 3)]
    phase = gathered(rows, [], since=at(MONDAY, DAY), until=at(MONDAY, 8 * DAY))

    assert phase.users["user_id"].to_list() == ["ann"]


def test_what_was_taken_from_another_answer_is_no_arm_s() -> None:
    """A purchase that names a request outside the experiment is not credited to the arm that showed the same item."""
    phase = gathered(
        [shown("r1", "ann", 0), shown("other", "ann", 1, experiment=None)],
        [took("ann", "i1", 2, "other"), took("ann", "i2", 2, "r1")],
        until=at(MONDAY, 8 * DAY),
    )

    assert phase.users["hits"].to_list() == [1]


def test_a_request_logged_twice_counts_once() -> None:
    """A retried request is one request."""
    phase = gathered([shown("r1", "ann", 0), shown("r1", "ann", 0)], [], until=at(MONDAY, 8 * DAY))

    assert phase.users["requests"].to_list() == [1]


def test_answers_without_a_row_are_lost() -> None:
    """The servers counted four answers of the control, the log has three."""
    rows = [shown(f"r{number}", "ann", number) for number in range(3)]

    assert gathered(rows, [], answered={"control": 4}).lost == {"control": 0.25}  # type: ignore[arg-type]


def test_rows_of_the_simulator_are_known() -> None:
    """One simulated row makes the whole phase a simulation."""
    assert gathered([shown("r1", "ann", 0), shown("r2", "bob", 0, surface="simulation")], []).simulated


def test_a_log_without_the_experiment_says_what_it_has() -> None:
    """The message names the experiments and revisions that are there."""
    with pytest.raises(
        UsageError, match=r"no exposure of experiment codes by revision 3 .* there are beams \(revision 7\)"
    ):
        gathered([shown("r1", "ann", 0, experiment="beams", revision=7)], [])


def test_the_phase_has_the_revision_s_shares() -> None:
    """A ramp changes the shares, never the arms or the experiment."""
    quarter = [arm.model_copy(update={"share": share}) for arm, share in zip(REVISION.arms, (0.75, 0.25), strict=True)]
    frozen = experiment.phase_plan(plan(), revision(experiment="codes", arms=tuple(quarter)))

    assert frozen.shares == {"control": 0.75, "treatment": 0.25}
    assert frozen.model_copy(update={"shares": plan().shares}) == plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"experiment": "beams"}, "runs experiment beams, the plan is of codes"), ({}, "has arms arm0, arm1, the plan")],
)
def test_a_revision_of_something_else_is_refused(changes: dict[str, str], message: str) -> None:
    """Another experiment, or other arms."""
    with pytest.raises(UsageError, match=message):
        experiment.phase_plan(plan(), revision(arms=arms(0.5, 0.5), **{"experiment": "codes", **changes}))


def test_users_before_an_experiment_are_counted_whatever_ran() -> None:
    """Two users asked in the two weeks up to the newest row; one of them bought what was shown."""
    write_exposures(
        [shown("r1", "ann", 0, experiment=None), shown("r2", "bob", 2, experiment="x"), shown("r3", "cat", 13)]
    )
    write_outcomes([took("ann", "i1", 1)])
    users = experiment.before(plan(), home.exposures_dir(), home.outcomes_dir())

    assert users.select("user_id", "hits", "requests").rows() == [("ann", 1, 1), ("bob", 0, 1)]


def test_attributes_join_by_user(tmp_path: Path) -> None:
    """A column from outside arrives; who is not in the file has none."""
    users = pl.DataFrame({"user_id": ["7", "8"], "hits": [1, 2]})
    (tmp_path / "a.csv").write_text("user_id,country\n7,FR\n")

    assert experiment.with_attributes(users, tmp_path / "a.csv")["country"].to_list() == ["FR", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x\n7,1\n", "no column user_id"),
        ("user_id,x\n7,1\n7,2\n", "user '7' twice"),
        ("user_id,hits\n7,1\n", "hits"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """No user id, a user twice, a column that the logs give."""
    (tmp_path / "a.csv").write_text(text)

    with pytest.raises(UsageError, match=message):
        experiment.with_attributes(pl.DataFrame({"user_id": ["7"], "hits": [1]}), tmp_path / "a.csv")


def test_an_answer_of_an_arm_that_is_not_the_user_s_is_counted() -> None:
    """Every row's arm is held against what the revision says of its user: here one of Ann's two answers is wrong."""
    own = assign("ann", REVISION).arm.name
    other = "treatment" if own == "control" else "control"
    phase = gathered([shown("r1", "ann", 0, own), shown("r2", "ann", 1, other), shown("r3", "cat", 9)], [])

    assert phase.users.select("user_id", "misplaced").rows() == [("ann", 1)]


def test_a_phase_ends_when_the_experiment_stops() -> None:
    """The first answer of a later revision ends it, though that one runs no experiment."""
    stopped = shown("r3", "ann", 9, revision=4, experiment=None)

    assert gathered([shown("r1", "ann", 0), stopped], [took("ann", "i1", 20)]).until == at(MONDAY, 9 * DAY)
