"""One row a user, worked by hand from a few exposures, and final once it is there."""

import polars as pl
import pytest

from sidrec import exposure, outcome
from sidrec.experiment.users import by_user, lost_answers, with_past

DAY = 86_400
BUNDLES = {"control": "b-1", "treatment": "b-2"}


def shown(
    request_id: str, user_id: str | None, day: float, arm: str = "control", **changes: object
) -> dict[str, object]:
    """One exposure row; its columns are the log's."""
    row = dict.fromkeys(exposure.SCHEMA) | {
        "request_id": request_id,
        "user_id": user_id,
        "event_time": int(day * DAY),
        "wall_time_ms": int(day * DAY * 1000),
        "arm": arm,
        "bundle_id": BUNDLES[arm],
        "experiment": "codes",
        "latency_ms": 20.0,
        "source": "model",
    }
    return row | changes


def table(*rows: dict[str, object]) -> pl.LazyFrame:
    return pl.DataFrame(rows, schema=exposure.SCHEMA).lazy()


def taken(*rows: tuple[str, str, float]) -> pl.LazyFrame:
    schema = {"request_id": pl.String, "item_id": pl.String, "event_time": pl.Int64}
    return pl.DataFrame([(r, i, int(d * DAY)) for r, i, d in rows], schema=schema, orient="row").lazy()


def users_of(exposures: pl.LazyFrame, hits: pl.LazyFrame | None = None, **changes: int) -> dict[str, dict[str, object]]:
    times = {"window_s": 7 * DAY, "until": 10 * DAY, **changes}
    frame = by_user(exposures, taken() if hits is None else hits, experiment="codes", bundles=BUNDLES, **times)
    return {row["user_id"]: row for row in frame.to_dicts()}


def test_a_user_s_requests_are_counted_in_their_window() -> None:
    """Two requests in the week from the first, a third after it; three items taken, one of them too late."""
    exposures = table(
        shown("r1", "ann", 1.0), shown("r2", "ann", 3.0, source="cold", latency_ms=50.0), shown("r3", "ann", 8.5)
    )
    hits = taken(("r1", "x", 1.1), ("r1", "y", 4.0), ("r2", "z", 9.0), ("r3", "z", 8.6), ("elsewhere", "x", 2.0))

    assert users_of(exposures, hits)["ann"] == {
        "user_id": "ann",
        "arm": "control",
        "first_seen": DAY,
        "arms": 1,
        "requests": 2,
        "foreign": 0,
        "latency_ms": 70.0,
        "cold": 1,
        "degraded": 0,
        "hits": 2,
        "hit_requests": 1,
    }


def test_a_user_enters_when_the_window_has_closed_and_never_changes() -> None:
    """A day later the row is the same, whatever the user did since."""
    early, late = shown("r1", "ann", 1.0), shown("r2", "bob", 5.0)
    before = users_of(table(early, late))
    after = users_of(table(early, late, shown("r3", "ann", 9.0)), until=13 * DAY)

    assert set(before) == {"ann"}
    assert after["ann"] == before["ann"]
    assert set(after) == {"ann", "bob"}


def test_two_arms_and_a_foreign_bundle_are_seen() -> None:
    """The first arm is the user's, the second one counts, and so does an answer of another bundle."""
    exposures = table(
        shown("r1", "ann", 1.0, "treatment"), shown("r2", "ann", 2.0), shown("r3", "bob", 1.0, bundle_id="b-9")
    )
    found = users_of(exposures)

    assert (found["ann"]["arm"], found["ann"]["arms"]) == ("treatment", 2)
    assert (found["ann"]["foreign"], found["bob"]["foreign"]) == (0, 1)


def test_an_arm_without_a_known_bundle_is_foreign() -> None:
    """A row of an arm that the revision lacks cannot be pure."""
    assert users_of(table(shown("r1", "ann", 1.0) | {"arm": "third"}))["ann"]["foreign"] == 1


def test_other_experiments_phases_and_nameless_requests_are_left_out() -> None:
    """A user first seen in an earlier phase stays out of this one."""
    exposures = table(
        shown("r1", "ann", 1.0, experiment="other"),
        shown("r2", None, 2.5),
        shown("r3", "bob", 1.0),
        shown("r4", "bob", 2.5),
        shown("r5", "eve", 2.5),
    )

    assert set(users_of(exposures, since=2 * DAY)) == {"eve"}


def test_the_past_counts_only_what_was_before_the_start() -> None:
    """Three days before day 5: days 2 to 4; an event sent twice counts once; a user without any has zero."""
    rows = [("e0", "ann", 1.9), ("e1", "ann", 2.0), ("e2", "ann", 4.9), ("e2", "ann", 4.9), ("e3", "ann", 5.0)]
    outcomes = pl.DataFrame(
        [dict.fromkeys(outcome.SCHEMA) | {"event_id": e, "user_id": u, "event_time": int(d * DAY)} for e, u, d in rows],
        schema=outcome.SCHEMA,
    )
    users = pl.DataFrame({"user_id": ["bob", "ann"]})

    assert with_past(users, outcomes.lazy(), start=5 * DAY, days=3, name="past")["past"].to_list() == [0, 2]


def test_lost_answers_are_those_without_a_row() -> None:
    """Of four answers three are logged; an arm without any answer has no share."""
    exposures = table(*(shown(f"r{n}", None, 1.0) for n in range(3)))
    lost = lost_answers(exposures, {"control": 4, "treatment": 0}, experiment="codes")

    assert lost == pytest.approx({"control": 0.25})


def test_an_answer_to_a_user_of_another_arm_is_misplaced() -> None:
    """Ann belongs to the control, Bob to no arm: one answer of each is not theirs."""
    exposures = table(shown("r1", "ann", 1.0), shown("r2", "ann", 2.0, "treatment"), shown("r3", "bob", 1.0))
    own = {"ann": "control", "bob": None}
    times = {"window_s": 7 * DAY, "until": 10 * DAY}
    found = by_user(exposures, taken(), experiment="codes", bundles=BUNDLES, assigned=own.__getitem__, **times)

    assert found.select("user_id", "misplaced").rows() == [("ann", 1), ("bob", 1)]
