"""A revision that would move exposed users, or change what an arm is, is refused with its reason."""

from typing import Any

import pytest

from sidrec.decoding.exploration import Exploration
from sidrec.errors import UsageError
from sidrec.exclusion import Exclusion
from sidrec.release.ramp import check_ramp, leaving
from sidrec.release.revision import Revision
from tests.sidrec.release.test_revision import arms, ref, revision


def step(*shares: float, **changes: Any) -> Revision:
    return revision(arms=arms(*shares), experiment="codes", **changes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0.95, 0.05), (0.8, 0.2)),
        ((0.7, 0.2, 0.1), (0.4, 0.2, 0.4)),
        ((0.7, 0.2, 0.1), (0.4, 0.5, 0.1)),
        ((0.7, 0.3), (0.5, 0.3, 0.2)),
        ((0.7, 0.1, 0.1, 0.1), (0.4, 0.25, 0.1, 0.25)),
    ],
)
def test_growing_arms_pass(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    """One challenger, either of two, a second one that joins, any of three within their parts."""
    assert leaving(step(*before), step(*after)) == {}
    check_ramp(step(*before), step(*after))


def test_stopping_an_arm_is_no_ramp() -> None:
    """The stopped arm's users go back to the champion, the other challenger's stay."""
    check_ramp(step(0.4, 0.3, 0.3), step(0.7, 0.0, 0.3))


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (step(0.8, 0.2), r"\(share of all users: arm1 10.00%\)"),
        (step(0.5, 0.3, 0.1, 0.1), r"arm1 30.00%"),
        (step(0.7, 0.3, plan="b" * 64), r"under the plan none, this revision has bbbbbbbbbbbb"),
        (step(0.7, 0.3, exclusion=Exclusion(group="g", low=0, high=0.5)), r"from another part of everybody"),
        (step(0.7, 0.3, exploration=Exploration(share=0.1, temperature=1)), r"from another part of everybody"),
        (step(0.7, 0.3, salt="other"), "salt 's', this revision has 'other': every user would be drawn anew"),
    ],
)
def test_a_step_that_moves_exposed_users_is_refused(after: Revision, message: str) -> None:
    """A smaller share, two more challengers that shorten the line; another plan, piece, exploration or salt."""
    with pytest.raises(UsageError, match=message):
        check_ramp(step(0.7, 0.3), after)


def test_an_arm_keeps_its_bundle() -> None:
    """The same name before another bundle is refused, both ids named."""
    swapped = tuple(arm.model_copy(update={"bundle": ref(9)}) if arm.share == 0.5 else arm for arm in arms(0.5, 0.5))

    with pytest.raises(UsageError, match=f"arm0 of experiment codes is {ref(0).bundle_id}, this revision makes it"):
        check_ramp(step(0.6, 0.4), revision(arms=swapped, experiment="codes"))


def test_another_experiment_is_free_to_draw_anew() -> None:
    """Who was in the last experiment has no say in the next one."""
    check_ramp(step(0.7, 0.3), revision(arms=arms(0.9, 0.1), experiment="beams", salt="other"))
