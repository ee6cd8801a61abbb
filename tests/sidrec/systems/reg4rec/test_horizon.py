"""The window is the user's next baskets by their weights, and never reaches past the end of training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.nodes import NONE
from sidrec.systems.history import History
from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig
from sidrec.systems.reg4rec.horizon import path_rewards, window, windows_of
from sidrec.systems.reg4rec.rewards import consistency_reward, item_reward

HISTORY = History(np.array([1, 2, 3, 4, 5]), np.array([0, 1, 2, 3, 4, 5]), np.array([10, 20, 30, 40, 50]))


def shares(found: list) -> list[tuple[list[int], float]]:
    return [(items.tolist(), pytest.approx(weight)) for items, weight in found]


def test_weights_halve_and_sum_to_one() -> None:
    assert shares(window(HISTORY, 1, horizon=3, decay=0.5, end=100)) == [([2], 4 / 7), ([3], 2 / 7), ([4], 1 / 7)]


def test_the_end_of_training_cuts_the_window_and_scales_the_rest() -> None:
    """Day 40 is the first that may not be seen; a window that begins there is empty."""
    assert shares(window(HISTORY, 1, horizon=3, decay=0.5, end=40)) == [([2], 2 / 3), ([3], 1 / 3)]
    assert window(HISTORY, 3, horizon=3, decay=0.5, end=40) == []


def test_an_item_that_comes_again_counts_once() -> None:
    """Basket 1 has only items of basket 0 and drops out; the third keeps its decay."""
    history = History(np.array([7, 8, 7, 8, 9]), np.array([0, 2, 3, 5]), np.array([1, 2, 3]))

    assert shares(window(history, 0, horizon=3, decay=0.5, end=9)) == [([7, 8], 1 / 1.25), ([9], 0.25 / 1.25)]


@st.composite
def histories(draw: st.DrawFn) -> History:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    sizes = rng.integers(1, 4, draw(st.integers(1, 9)))
    days = np.sort(rng.integers(0, 30, len(sizes)))
    return History(rng.integers(0, 12, sizes.sum()), np.concatenate([[0], sizes.cumsum()]), days)


@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(0, 8), st.integers(1, 5), st.integers(0, 32))
def test_nothing_on_or_after_the_end_is_ever_seen(history: History, first: int, horizon: int, end: int) -> None:
    """Whatever happens from `end` on, the window is the same, and all of it lies before."""
    found = window(history, first, horizon=horizon, decay=0.5, end=end)
    late = np.repeat(history.days, np.diff(history.start)) >= end
    other = History(np.where(late, 99, history.items), history.start, history.days)
    kept = int(np.searchsorted(history.days, end))
    before = set(history.items[history.start[min(first, kept)] : history.start[kept]].tolist())

    assert shares(window(other, first, horizon=horizon, decay=0.5, end=end)) == [(i.tolist(), w) for i, w in found]
    assert {item for items, _ in found for item in items.tolist()} <= before
    assert sum(weight for _, weight in found) == pytest.approx(1.0 if found else 0.0)
    flat = [item for items, _ in found for item in items.tolist()]
    assert len(flat) == len(set(flat))


def test_a_path_is_judged_by_the_best_item_of_each_basket() -> None:
    """By plain loops over users, paths, baskets and items."""
    torch.manual_seed(0)
    config = Reg4RecAlignmentConfig()
    codes, category = torch.randint(0, 3, (12, 4)), torch.randint(0, 3, (12,))
    found = [
        window(HISTORY, 0, horizon=3, decay=0.5, end=100),
        window(History(np.array([6, 7, 8]), np.array([0, 2, 3]), np.array([1, 2])), 0, horizon=3, decay=0.5, end=9),
    ]
    tokens, named = torch.randint(0, 3, (2, 5, 4)), torch.randint(0, 3, (2, 5, 4))
    rewards = path_rewards(tokens, named, windows_of(found), codes, category, config)
    for user, own in enumerate(found):
        for path in range(5):
            pair = tokens[user, path], named[user, path]
            expected = float(consistency_reward(pair[1], config))
            for items, weight in own:
                best = max(float(item_reward(*pair, codes[item], category[item], config)) for item in items)
                expected += weight * best
            assert rewards[user, path].item() == pytest.approx(expected)


def test_padding_is_no_item() -> None:
    table = windows_of([[(np.array([3, 4]), 1.0)], []])

    assert table.items.tolist() == [[[3, 4]], [[NONE, NONE]]]
    assert table.weight.tolist() == [[1.0], [0.0]]
