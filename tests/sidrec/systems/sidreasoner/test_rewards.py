"""Rewards by the release's table: half for every code that lacks, nothing without the first, a tenth for an item."""

import numpy as np
import pytest
import torch

from sidrec.data.catalog import PAD
from sidrec.systems.sidreasoner.rewards import WRONG, rewards_of

CODES = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 3], [6, 2, 3]], dtype=np.int32)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([1, 2, 3], 1.1),
        ([1, 2, 4], 0.6),  # two codes of three, and an item
        ([1, 2, 9], 0.5),  # two codes, no item
        ([1, 5, 3], 0.35),  # the first code; the third does not count behind a wrong one
        ([1, 9, 3], 0.25),
        ([6, 2, 3], 0.1),  # an item that shares nothing from the front
        ([9, 2, 3], 0.0),
        ([1, WRONG, 3], 0.25),
        ([PAD, PAD, PAD], 0.0),  # no answer
    ],
)
def test_rewards_by_the_table(answer: list[int], expected: float) -> None:
    found = rewards_of(torch.tensor([answer]), [[0]], CODES, valid_reward=0.1)

    assert found.total.item() == pytest.approx(expected)


def test_any_item_of_the_basket_is_right() -> None:
    """The nearest one counts; rows with fewer of them are not given one by the padding."""
    found = rewards_of(torch.tensor([[6, 2, 3], [1, 2, 3]]), [[0, 3], [3]], CODES, valid_reward=0.0)

    assert found.total.tolist() == [1.0, 0.0]
    assert found.valid.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ([1, 2, PAD], 0, 1.0),  # two codes are all that item 0 has
        ([1, 2, 0], 0, 0.5),  # goes on where the name ends: another item's
        ([1, 3, 1], 2, 1.0),
        ([1, 3, PAD], 2, 0.5),  # ends one early
    ],
)
def test_a_name_is_right_where_it_also_ends_right(answer: list[int], target: int, expected: float) -> None:
    codes = np.array([[1, 2, PAD], [1, 3, 0], [1, 3, 1]], dtype=np.int32)

    assert rewards_of(torch.tensor([answer]), [[target]], codes, valid_reward=0.0).hits.item() == expected
