"""A guardrail speaks when an arm hurts, is silent when it does not, and takes no more than that arm away."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sidrec import exposure
from sidrec.errors import LedgerError
from sidrec.release.guard import stop, watch
from sidrec.release.ledger import Ledger
from sidrec.release.policy import Policy
from sidrec.release.promotion import promote
from sidrec.release.revision import Revision
from sidrec.release.row import LedgerRow
from tests.release_world import make_bundle, make_signed

USERS = 20_000
SHARE = 0.2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return [make_bundle(tmp_path_factory.mktemp("bundle"), seed) for seed in range(2)]


@pytest.fixture
def canary(made: list[Any], tmp_path: Path) -> LedgerRow:
    """A champion and a canary of a fifth of the users."""
    for number, bundle in enumerate(made):
        make_signed(bundle, tmp_path / f"{number}.json")
    promote(made[0], tmp_path / "0.json", why="first", who="ann")
    return promote(made[1], tmp_path / "1.json", why="try", who="ann", to="canary", share=SHARE)


def logged(revision: Revision, seed: int = 0, users: int = USERS, **hurt: float) -> pl.LazyFrame:
    """Return the exposures of users who ask some times each; `hurt` makes the canary worse in one way."""
    draw = np.random.default_rng(seed)
    arm = np.where(draw.random(users) < SHARE, "canary", "champion")
    lost = (arm == "canary") & (draw.random(users) < hurt.get("lost_users", 0.0))
    rows = pl.DataFrame({"user_id": [f"u{n}" for n in range(users)], "arm": arm}).filter(~pl.Series(lost))
    rows = rows.select(pl.all().repeat_by(pl.Series(draw.poisson(2, rows.height) + 1)).explode())
    mine = (rows["arm"] == "canary").to_numpy()
    answered = ~(mine & (draw.random(rows.height) < hurt.get("lost_answers", 0.0)))
    rate = draw.random(rows.height)
    cold = rate < np.where(mine, 0.1 + hurt.get("cold", 0.0), 0.1)
    degraded = rate > np.where(mine, 0.98 - hurt.get("degraded", 0.0), 0.98)
    latency = draw.gamma(4, 5, rows.height) * np.where(mine & (draw.random(rows.height) < hurt.get("slow", 0.0)), 5, 1)
    valid = np.where(mine & (draw.random(rows.height) < hurt.get("valid_beams", 0.0)), 5, 20)
    return (
        rows.with_columns(
            request_id=pl.int_range(pl.len()).cast(pl.String),
            revision=pl.lit(revision.revision),
            experiment=pl.lit(revision.experiment, dtype=pl.String),
            source=pl.Series(np.where(cold, "cold", np.where(degraded, "degraded", "model"))),
            latency_ms=pl.Series(latency, dtype=pl.Float32),
            beam_width=pl.lit(20),
            valid_beams=pl.Series(valid),
        )
        .filter(pl.Series(answered))
        .lazy()
    )


def broken(exposures: pl.LazyFrame) -> list[str]:
    [one] = watch(exposures, Ledger().rows(), Policy())
    return [breach.guardrail for breach in one.broken]


@pytest.mark.parametrize(
    ("guardrail", "much"),
    [
        ("lost_users", 0.2),
        ("lost_answers", 0.2),
        ("cold", 0.15),
        ("degraded", 0.15),
        ("slow", 0.1),
        ("valid_beams", 0.2),
    ],
)
def test_each_way_of_hurting_is_seen_and_named(canary: LedgerRow, guardrail: str, much: float) -> None:
    """One canary is worse in one way, and that way's guardrail speaks, alone."""
    assert broken(logged(canary.revision, **{guardrail: much})) == [guardrail]


def test_a_canary_as_good_as_the_champion_is_never_stopped(canary: LedgerRow) -> None:
    """Sixty looks at sixty draws of the same behaviour, small and large: no guardrail speaks."""
    looks = [broken(logged(canary.revision, seed, users)) for seed in range(20) for users in (200, 2_000, 8_000)]

    assert looks == [[]] * 60


def test_an_arm_that_answers_nobody_is_seen(canary: LedgerRow) -> None:
    """Every request of it fails: it has no row at all, and that is what is seen."""
    exposures = logged(canary.revision).filter(pl.col("arm") == "champion")

    assert broken(exposures) == ["lost_users"]


def test_a_few_answers_say_nothing(canary: LedgerRow) -> None:
    """Below the least number of answers nothing is judged, however bad."""
    assert broken(logged(canary.revision, users=100, cold=0.8)) == []


def test_only_the_present_revision_counts(canary: LedgerRow) -> None:
    """What another revision answered is another canary's."""
    bad = logged(canary.revision.renumbered(7), cold=0.5)

    assert broken(pl.concat([bad, logged(canary.revision)])) == []


def test_who_is_in_no_experiment_does_not_count(canary: LedgerRow) -> None:
    """Users whom the experiment may not have are the champion's, and no lost ones of the canary's."""
    others = logged(canary.revision, seed=1).with_columns(arm=pl.lit("champion"), experiment=pl.lit(None, pl.String))

    assert broken(pl.concat([others, logged(canary.revision)])) == []


def test_the_rows_of_a_real_log_are_read(canary: LedgerRow) -> None:
    """The columns are the exposure log's; an empty log is an arm without answers."""
    empty = exposure.SCHEMA.to_frame().lazy()
    [one] = watch(empty, Ledger().rows(), Policy())

    assert (one.health.answers, one.broken) == (0, ())


def test_stopping_gives_the_champion_everybody(canary: LedgerRow, made: list[Any]) -> None:
    """The row has the figures and the sentence; the revision is the champion's alone, under a new number."""
    [one] = watch(logged(canary.revision, cold=0.3), Ledger().rows(), Policy())
    row = stop(one, canary.revision, ledger=Ledger())

    assert (row.action, row.who, row.bundle) == ("stop", "guard", made[1].bundle_id)
    assert row.measured is not None
    assert row.measured["cold"] == pytest.approx(0.4, abs=0.02)
    assert "of its answers are cold" in row.why
    assert row.revision.bundle_ids == (made[0].bundle_id,)
    assert row.revision.experiment is None
    assert watch(logged(row.revision), Ledger().rows(), Policy()) == []


def test_what_was_decided_meanwhile_is_not_stopped(canary: LedgerRow, made: list[Any], tmp_path: Path) -> None:
    """What it saw was another revision's; the next look is of the new one."""
    [one] = watch(logged(canary.revision, cold=0.3), Ledger().rows(), Policy())
    promote(made[1], tmp_path / "1.json", why="all in", who="ann", overrides=["dwell"], second_approver="bob")

    with pytest.raises(LedgerError, match="ann decided something else meanwhile"):
        stop(one, canary.revision, ledger=Ledger())
