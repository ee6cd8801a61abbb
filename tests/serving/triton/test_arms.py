"""The real server gives each user the arm that Python says offline; outsiders, exploring users and a shadow as well."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from serving.triton.server import TritonServer, free_port
from sidrec import exposure
from sidrec.client import Recommendation, RecommendClient
from sidrec.decoding.exploration import Exploration, inclusion_probs
from sidrec.exclusion import Exclusion
from sidrec.recommender import Recommender, Request
from sidrec.release.revision import BundleRef, Revision, assign
from tests.serving.conftest import publish, wait_answer
from tests.serving.world import make_bundle, make_revision

USERS = [f"user {number}" for number in range(150)]
K = 5


@dataclass(frozen=True)
class Asked:
    """What 150 users got, and the logs behind it."""

    revision: Revision
    answers: dict[str, Recommendation]
    rows: pl.DataFrame
    shadow: pl.DataFrame
    champion: Recommender


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("arms")
    made = [make_bundle(folder, name=name, newest=newest) for name, newest in (("a", 0), ("b", 50), ("c", 100))]
    revision = make_revision(
        1,
        *made[:2],
        shadow=BundleRef.of(made[2]),
        exploration=Exploration(share=0.2, temperature=5.0, candidates=20),
        exclusion=Exclusion(group="checkout", low=0.0, high=0.7),
        deadline_ms=20_000,
    )
    publish(folder / "repository", revision, *made)
    server = TritonServer(folder / "repository", folder / "home", folder / "log", free_port(), free_port())
    server.start()
    try:
        with RecommendClient(server.url, timeout_s=20) as client:
            wait_answer(server.running, client)
            answers = {
                user: client.recommend(user_id=user, history=["i1"], k=K, context={"request_id": user})
                for user in USERS
            }
        shadow = rows_of(folder / "home" / "shadow")
        rows = rows_of(folder / "home" / "exposures")
        yield Asked(revision, answers, rows, shadow, Recommender.open(made[0].folder))
    finally:
        server.stop()


def rows_of(folder: Path) -> pl.DataFrame:
    """Return a log once it has a row a user, or what it has after 20 s."""
    deadline = time.monotonic() + 20
    while (table := exposure.read(folder)).height < len(USERS) and time.monotonic() < deadline:
        time.sleep(0.2)
    return table


def test_the_server_and_python_give_a_user_the_same_arm(asked: Asked) -> None:
    """One rule: on the wire, in the log and offline; who does not count is logged without the experiment."""
    expected = {user: assign(user, asked.revision) for user in USERS}
    logged = {row["user_id"]: (row["arm"], row["bundle_id"], row["experiment"]) for row in asked.rows.to_dicts()}

    assert {user: (one.arm, one.bundle_id) for user, one in asked.answers.items()} == {
        user: (one.arm.name, one.arm.bundle.bundle_id) for user, one in expected.items()
    }
    assert logged == {
        user: (one.arm.name, one.arm.bundle.bundle_id, "test" if one.counts else None) for user, one in expected.items()
    }
    assert {(one.counts, one.explores) for one in expected.values()} == {(True, False), (False, False), (False, True)}


def test_only_exploring_users_get_drawn_answers_and_their_chances_are_logged(asked: Asked) -> None:
    """The chance in the log is the one that Python computes from the champion's candidates offline."""
    drawn = asked.rows.filter(pl.col("propensities").is_not_null())
    [best] = asked.champion.recommend([Request(("i1",), (), k=20)])
    probs = inclusion_probs(best.scores, K, 5.0)

    assert set(drawn["user_id"]) == {user for user in USERS if assign(user, asked.revision).explores}
    for row in drawn.to_dicts():
        assert row["item_ids"] == [best.item_ids[rank] for rank in row["ranks"]]
        assert row["propensities"] == pytest.approx([probs[rank] for rank in row["ranks"]])
        assert row["scores"] == sorted(row["scores"], reverse=True)


def test_the_shadow_s_answers_lie_apart(asked: Asked) -> None:
    """Its rows have the same requests and the third bundle's items, and none is in the log of what was sent."""
    bundle = asked.revision.bundle_ids[-1]

    assert set(asked.shadow["request_id"]) == set(USERS)
    assert set(asked.shadow["bundle_id"]) == {bundle}
    assert set(asked.shadow["item_ids"].list.first()) == {"i100"}
    assert bundle not in set(asked.rows["bundle_id"])
