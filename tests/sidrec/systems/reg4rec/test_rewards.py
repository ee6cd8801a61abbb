"""The four rewards, on the eight paths of the paper's figure."""

import pytest
import torch

from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig
from sidrec.systems.reg4rec.rewards import (
    category_hits,
    consistency_reward,
    item_reward,
    step_consistency,
    step_hits,
    whole_path,
)

TARGET = torch.tensor([1, 2, 3])  # <t0_1> <t1_2> <t2_3>
CATEGORY = torch.tensor(27)


@pytest.mark.parametrize(("path", "hits"), [([1, 20, 3], 2), ([10, 2, 30], 1)], ids=["path 1", "path 2"])
def test_step_hit(path: list[int], hits: int) -> None:
    assert step_hits(torch.tensor(path), TARGET).item() == hits


@pytest.mark.parametrize(("path", "whole"), [([1, 2, 3], 1), ([1, 2, 30], 0)], ids=["path 3", "path 4"])
def test_global_path(path: list[int], whole: int) -> None:
    assert int(whole_path(torch.tensor(path), TARGET)) == whole


@pytest.mark.parametrize(("named", "hits"), [([30, 30, 27], 1), ([27, 30, 27], 2)], ids=["path 5", "path 6"])
def test_category_hit(named: list[int], hits: int) -> None:
    assert category_hits(torch.tensor(named), CATEGORY).item() == hits


@pytest.mark.parametrize(("named", "agree"), [([30, 30, 30], 2), ([27, 30, 30], 1)], ids=["path 7", "path 8"])
def test_step_consistency(named: list[int], agree: int) -> None:
    assert step_consistency(torch.tensor(named)).item() == agree


def test_the_sum_by_hand() -> None:
    """Two of three tokens, one of three categories, one of two neighbours; and all of everything."""
    config = Reg4RecAlignmentConfig()
    tokens, named = torch.tensor([[1, 20, 3], [1, 2, 3]]), torch.tensor([[27, 30, 30], [27, 27, 27]])

    assert item_reward(tokens, named, TARGET, CATEGORY, config).tolist() == pytest.approx([2 / 3 + 0.5 / 3, 2.5])
    assert consistency_reward(named, config).tolist() == pytest.approx([0.125, 0.25])
