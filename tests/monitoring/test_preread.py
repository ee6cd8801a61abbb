"""A pre-read's rows are gathered from the logs as a hand count of them says."""

import dataclasses
from datetime import date
from pathlib import Path

import pytest

from monitoring.preread import Draws, gather
from sidrec import exposure, home
from sidrec.errors import UsageError
from sidrec.exposure import Exposure
from tests.monitoring.drift_world import BUNDLE_ID, at, bought, exposed, write_exposures, write_outcomes

DAY = 86_400
MONDAY = date(2010, 11, 1)
OTHER = "b-aaaaaaaaaaaa"


def drawn(request: str, user: str, day: float, items: list[str], **changes: object) -> Exposure:
    values = {"ranks": [0, 3], "propensities": [0.9, 0.25], **changes}
    return exposed(request, user, at(MONDAY, int(day * DAY)), items, **values)


def shadowed(request: str, items: list[str], bundle: str = OTHER, day: float = 0) -> Exposure:
    return exposed(request, "u", at(MONDAY, int(day * DAY)), items, arm="shadow", bundle_id=bundle)


def gathered(*shadows: Exposure, **changes: object) -> Draws:
    writer = exposure.ExposureWriter(home.shadow_dir())
    for row in shadows:
        writer.append(row)
    writer.close()
    return gather(home.exposures_dir(), home.shadow_dir(), home.outcomes_dir(), **changes)  # type: ignore[arg-type]


def test_items_that_were_drawn_are_rows_with_what_was_taken() -> None:
    """Ann took one of two; Bob's answer was not drawn; Cat's week is not over; a nameless request is its own user."""
    nameless = dataclasses.replace(drawn("r4", "", 1, ["i5", "i6"]), user_id=None)
    write_exposures(
        [
            drawn("r1", "ann", 0, ["i1", "i4"]),
            exposed("r2", "bob", at(MONDAY), ["i1", "i4"]),
            drawn("r3", "cat", 5, ["i1", "i4"]),
            nameless,
        ]
    )
    write_outcomes([bought("ann", "i4", at(MONDAY, DAY)), bought("dan", "i9", at(MONDAY, 9 * DAY))])
    found = gathered(shadowed("r1", ["i4", "i9"]), shadowed("r9", ["i1"]))

    assert found.drawn.sort("request_id", "rank").rows() == [
        ("r1", "ann", "i1", 0, 0.9, 0),
        ("r1", "ann", "i4", 3, 0.25, 1),
        ("r4", "r4", "i5", 0, 0.9, 0),
        ("r4", "r4", "i6", 3, 0.25, 0),
    ]
    assert sorted(found.answers.rows()) == [("r1", ["i4", "i9"]), ("r9", ["i1"])]
    assert (found.bundle_id, found.simulated) == (OTHER, False)


def test_the_newest_shadow_is_judged_unless_another_is_named() -> None:
    """Answers of different bundles never mix."""
    write_exposures([drawn("r1", "ann", 0, ["i1", "i4"]), exposed("r2", "bob", at(MONDAY, 9 * DAY), ["i1"])])
    older = shadowed("r1", ["i2"], bundle="b-bbbbbbbbbbbb")
    found = gathered(older, shadowed("r1", ["i4"], day=1))
    named = gathered(bundle="b-bbbbbbbbbbbb")

    assert (found.bundle_id, found.answers["item_ids"].to_list()) == (OTHER, [["i4"]])
    assert named.answers["item_ids"].to_list() == [["i2"]]


def test_draws_from_an_earlier_champion_do_not_count() -> None:
    """Its best answers were other answers."""
    write_exposures(
        [
            drawn("r1", "ann", 0, ["i1", "i4"], bundle_id="b-cccccccccccc"),
            drawn("r2", "bob", 1, ["i1", "i4"]),
            exposed("late", "eve", at(MONDAY, 9 * DAY), ["i1"]),
        ]
    )
    found = gathered(shadowed("r1", ["i4"]), shadowed("r2", ["i4"]))

    assert (found.champion, set(found.drawn["request_id"])) == (BUNDLE_ID, {"r2"})


@pytest.mark.parametrize(("shadow", "message"), [(False, "no shadow answered"), (True, "no drawn answer")])
def test_logs_without_draws_or_shadow_say_so(shadow: bool, message: str, own_state: Path) -> None:
    """Each error says what to switch on."""
    write_exposures([exposed("r1", "ann", at(MONDAY), ["i1"])])
    with pytest.raises(UsageError, match=message):
        gathered(*([shadowed("r1", ["i1"])] if shadow else []))
