"""The matrix answers "us or the world?" as a person would who saw every measure."""

from datetime import date

import pytest

from monitoring.findings import DriftVerdict, Finding
from monitoring.triage import alarming_arms, triage
from tests.monitoring.alert_world import finding, suspect, verdict

FLAT = [finding("served/0/normalised_entropy", arm=arm) for arm in ("control", "treatment")]
COLLAPSED = finding("served/0/normalised_entropy", "alarm", effect=0.5, value=0.38, reference_value=0.71)
ALIKE = COLLAPSED.model_copy(update={"arm": "control"})
UNKNOWN = finding("served/0/entropy", "insufficient", arm="control")
WORLD = finding("bought_items", "alarm", area="data", arm="all", effect=3.1, unit="JS over noise floor")


def test_a_cell_is_the_worst_measure_of_its_area_and_arm() -> None:
    """Level first, then how many times the limit; it says how many others moved."""
    found = [
        finding("served/0/entropy", "warn", effect=0.9),
        finding("served/1/entropy", "alarm", effect=0.3),
        finding("served/2/entropy", "alarm", effect=0.5, n=1_234),
        finding("served/3/entropy", "ok"),
    ]

    cell = triage(verdict(*found)).cell("sid", "treatment")

    assert cell is not None
    assert (cell.level, cell.name, cell.effect, cell.n) == ("alarm", "served/2/entropy", 0.5, 1_234)
    assert (cell.moved, cell.measures) == (3, 4)


def test_columns_are_the_world_each_arm_and_the_reference() -> None:
    """The control comes first; the reference says what the worst measure was, and judges nothing."""
    found = triage(verdict(WORLD, FLAT[0], COLLAPSED))
    offline = found.cell("sid", "offline")

    assert found.columns == ("all", "control", "treatment", "offline")
    assert offline is not None
    assert (offline.value, offline.n, offline.level) == (0.71, 20_000, None)
    assert found.cell("data", "treatment") is None


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ([FLAT[0], COLLAPSED], "Us: only treatment moved, control is flat."),
        ([WORLD, *FLAT], "The world: what is bought moved, the answers did not."),
        ([WORLD, UNKNOWN], "The world: what is bought moved, the answers have too few rows to tell."),
        ([WORLD, COLLAPSED, ALIKE], "Every arm moved alike: what they share, the data first"),
        ([COLLAPSED, ALIKE], "Every arm moved alike: what they share, features"),
        ([COLLAPSED, UNKNOWN], "treatment moved; the other arms have too few rows"),
        (FLAT, "Nothing moved."),
        ([], "Too few rows to tell."),
    ],
)
def test_us_or_the_world(found: list[Finding], answer: str) -> None:
    """One arm alone is us; all alike are what they share; an arm without rows is no witness."""
    assert triage(verdict(*found)).answer.startswith(answer)


def test_without_an_experiment_the_world_is_the_only_witness() -> None:
    """One arm has nothing to be compared with but what people bought."""
    alone = verdict(COLLAPSED).model_copy(update={"bundle_ids": {"treatment": "b-000000000002"}})

    assert "One arm answers everybody" in triage(alone).answer


def test_suspects_keep_their_order() -> None:
    """Whoever judged the causes judged their order too."""
    suspects = (
        suspect("codes_collapsed", "alarm", COLLAPSED),
        suspect("unseen_items", "warn", WORLD, since=date(2010, 9, 13)),
    )

    assert triage(verdict(COLLAPSED, WORLD, suspects=suspects)).suspects == suspects


@pytest.mark.parametrize(
    ("found", "arms"),
    [
        ([FLAT[0], COLLAPSED], ("treatment",)),
        ([COLLAPSED.model_copy(update={"arm": "control"}), COLLAPSED], ()),
        ([COLLAPSED], ()),
        ([FLAT[0], COLLAPSED.model_copy(update={"level": "warn"})], ()),
    ],
)
def test_drift_may_stop_only_what_alarms_alone(found: list[Finding], arms: tuple[str, ...]) -> None:
    """A warning, or an alarm that every arm shares, is no reason to stop one."""
    assert alarming_arms(verdict(*found)) == arms


def test_the_first_command_follows_from_who_moved() -> None:
    """The treatment is stopped, the champion rolled back, new data retrained on."""

    def steps(found: DriftVerdict) -> str:
        return triage(found).next_steps[0]

    champion = COLLAPSED.model_copy(update={"arm": "control"})

    assert steps(verdict(FLAT[0], COLLAPSED)) == "sidrec drift triage --stop treatment"
    assert steps(verdict(champion, FLAT[1])) == "sidrec rollback --reason '…'"
    assert steps(verdict(WORLD, suspects=(suspect("unseen_items", "alarm", WORLD),))) == (
        "sidrec drift triage --queue-retrain"
    )
