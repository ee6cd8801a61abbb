"""A revision is one consistent document, and a user keeps an arm."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sidrec.decoding.exploration import Exploration
from sidrec.exclusion import Exclusion
from sidrec.release.revision import Arm, BundleRef, Revision, arm_for, assign, single_arm
from tests.release_world import make_bundle


def ref(seed: int) -> BundleRef:
    sha256 = hashlib.sha256(bytes([seed])).hexdigest()
    return BundleRef(bundle_id=f"b-{sha256[:12]}", sha256=sha256)


def arms(*shares: float) -> tuple[Arm, ...]:
    return tuple(Arm(name=f"arm{n}", bundle=ref(n), share=share) for n, share in enumerate(shares))


def revision(**changes: Any) -> Revision:
    values: dict[str, Any] = {
        "revision": 1,
        "arms": arms(1.0),
        "salt": "s",
        "deadline_ms": 100,
        "history_deadline_ms": 50,
        "history_max_age_days": 10,
        "exposure_flush_s": 1.0,
        "clock": "wall",
    }
    return Revision(**(values | changes))


def test_survives_json() -> None:
    """The document reads back equal from its JSON text."""
    document = revision(arms=arms(0.5, 0.5), experiment="beam", shadow=ref(9))

    assert Revision.model_validate_json(document.model_dump_json()) == document


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": arms(0.5, 0.4), "experiment": "x"}, "sum to 0.9"),
        ({"arms": ()}, "at least 1"),
        ({"arms": arms(0.5, 0.5)}, "belong to an experiment"),
        ({"arms": (arms(0.5)[0], arms(0.5)[0]), "experiment": "x"}, "names of their own"),
        ({"revision": 0}, "greater than or equal to 1"),
        ({"schema_version": 2}, "Input should be 1"),
        ({"surprise": 1}, "Extra inputs"),
        ({"arms": (arms(1.0)[0].model_copy(update={"name": "shadow"}),)}, "is no arm's name"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    """Shares sum to 1, arms are told apart, and no unknown key passes."""
    with pytest.raises(ValidationError, match=message):
        revision(**changes)


def test_a_reference_whose_id_is_not_of_its_hash_is_refused() -> None:
    """The short id cannot point at one bundle and the hash at another."""
    with pytest.raises(ValidationError, match="not the address"):
        BundleRef(bundle_id=ref(1).bundle_id, sha256=ref(2).sha256)


def test_nothing_in_it_can_be_changed() -> None:
    """Assignment is refused; a change is another revision."""
    with pytest.raises(ValidationError, match="frozen"):
        revision().salt = "other"


def test_contents_hash_ignores_the_number_only() -> None:
    """A renumbered revision has the same contents; any other change does not."""
    document = revision()

    assert document.renumbered(7).revision == 7
    assert document.renumbered(7).contents_sha256 == document.contents_sha256
    assert revision(beam_width=3).contents_sha256 != document.contents_sha256


def test_bundle_ids_start_with_the_champion_and_end_with_the_shadow() -> None:
    """Each bundle stands once, in the order of the arms."""
    document = revision(arms=arms(0.5, 0.5), experiment="x", shadow=ref(0))

    assert document.bundle_ids == (ref(0).bundle_id, ref(1).bundle_id)


def test_single_arm_serves_as_the_recipe_says(tmp_path: Path) -> None:
    """One bundle answers everybody, on its recipe's clock and budgets."""
    bundle = make_bundle(tmp_path)
    document = single_arm(3, bundle)

    assert document.bundle_ids == (bundle.bundle_id,)
    assert (document.revision, document.clock, document.arms[0].share) == (3, "event", 1.0)
    assert document.deadline_ms == bundle.recipe.serving.deadline_ms
    assert document.history_max_age_days == bundle.recipe.features.max_age_days


@given(st.text(), st.text())
def test_an_arm_is_sticky(user: str, salt: str) -> None:
    """The same user under the same salt always gets the same arm, whatever the bundles behind it."""
    chosen = arm_for(user, salt, arms(0.3, 0.3, 0.4)).name

    assert arm_for(user, salt, arms(0.3, 0.3, 0.4)).name == chosen


def test_shares_are_met_and_salts_are_independent() -> None:
    """Of 20,000 users each arm gets its share within 5 sigma, and another salt reshuffles them."""
    users = [f"u{n}" for n in range(20_000)]
    first = [arm_for(user, "a", arms(0.1, 0.9)).name for user in users]
    second = [arm_for(user, "b", arms(0.1, 0.9)).name for user in users]
    both = sum(a == b == "arm0" for a, b in zip(first, second, strict=True))

    assert abs(Counter(first)["arm0"] - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(both - 200) < 5 * 200**0.5


def test_a_ramp_moves_nobody_back() -> None:
    """When the treatment's share grows, whoever was treated stays treated."""
    users = [f"u{n}" for n in range(5000)]
    for small, large in [(0.05, 0.2), (0.2, 0.5), (0.5, 1.0)]:
        before = {user for user in users if arm_for(user, "s", arms(1 - small, small)).name == "arm1"}
        after = {user for user in users if arm_for(user, "s", arms(1 - large, large)).name == "arm1"}

        assert before < after


def test_rounding_at_the_end_goes_to_an_arm_with_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point beyond the last edge (shares sum to 1 up to rounding) falls to the last arm that answers anybody."""
    monkeypatch.setattr("sidrec.release.buckets._HASH_RANGE", 1)

    assert arm_for("u", "s", arms(0.5, 0.5, 0.0)).name == "arm1"


def test_an_arm_without_a_share_answers_nobody() -> None:
    """Share 0 means nobody, at either end of the list."""
    chosen = {arm_for(f"u{n}", "s", arms(0.0, 1.0, 0.0)).name for n in range(2000)}

    assert chosen == {"arm1"}


def test_a_document_from_before_a_field_keeps_its_bytes() -> None:
    """What says nothing is not written, so that the hash of an old ledger row still holds."""
    text = revision().model_dump_json()

    assert not [name for name in ("plan", "exclusion", "exploration") if name in text]
    assert Revision.model_validate_json(text).model_dump_json() == text


def halves(experiment: str, low: float, high: float, **changes: Any) -> Revision:
    piece = Exclusion(group="checkout", low=low, high=high)
    return revision(arms=arms(0.5, 0.5), experiment=experiment, salt=experiment, exclusion=piece, **changes)


def test_two_experiments_of_one_group_never_share_a_user() -> None:
    """Of 100,000 users each is in at most one; each arm has its share of the piece; outside there is the champion."""
    first, second = halves("codes", 0.0, 0.3), halves("beams", 0.3, 1.0)
    users = [f"u{number}" for number in range(100_000)]
    found = [(assign(user, first), assign(user, second)) for user in users]
    seen = Counter(one.arm.name for one, _ in found if one.counts)

    assert not [pair for pair in found if pair[0].counts and pair[1].counts]
    assert all(one.counts or one.arm == first.arms[0] for one, _ in found)
    # Five standard errors of a binomial count.
    assert seen == pytest.approx({"arm0": 15_000, "arm1": 15_000}, abs=570)
    assert sum(other.counts for _, other in found) == pytest.approx(70_000, abs=730)


def test_exploring_users_are_the_champions_and_do_not_count() -> None:
    """One user in ten, the same ones at every step of a ramp, in no arm of the experiment."""
    explored = revision(arms=arms(0.8, 0.2), experiment="x", exploration=Exploration(share=0.1, temperature=1.0))
    grown = explored.model_copy(update={"arms": arms(0.2, 0.8)})
    users = [f"u{number}" for number in range(10_000)]
    exploring = {user for user in users if assign(user, explored).explores}

    assert len(exploring) == pytest.approx(1000, abs=150)
    assert exploring == {user for user in users if assign(user, grown).explores}
    assert {assign(user, explored) for user in exploring} == {(explored.arms[0], False, True)}
