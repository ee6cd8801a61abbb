"""MSRA: a path is judged by the next baskets of the user, not by the very next alone.

w_k = gamma^(k-1), scaled to sum 1 over the baskets that there are (REG4Rec, arXiv 2508.15308; decay and length are our
choice). Nothing on or after the end of the training period is ever in a window: it is cut there, and the weights are
scaled anew. An item that comes again within a window counts once, at its first time.

Axes: `user` rows, `ahead` baskets of a window, `item` of a basket (padded), `path` sampled for a user.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.nodes import NONE
from sidrec.systems.history import History, Ints
from sidrec.systems.reg4rec.config import Reg4RecAlignmentConfig
from sidrec.systems.reg4rec.rewards import consistency_reward, item_reward


@dataclass(frozen=True, slots=True)
class Windows:
    """The next baskets of some users, `NONE` and weight 0 where there are fewer."""

    items: Int[Tensor, "user ahead item"]
    weight: Float[Tensor, "user ahead"]  # sums to 1 a user

    def to(self, device: torch.device) -> "Windows":
        """Return the same windows on another device."""
        return Windows(self.items.to(device), self.weight.to(device))


def window(history: History, first: int, *, horizon: int, decay: float, end: int) -> list[tuple[Ints, float]]:
    """Return the items and the weight of each basket of a window, baskets without a new item left out.

    Args:
        first: the window's first basket, counted from the history's first.
        end: day that the training period ends before.
    """
    kept = history.before(end)
    seen: set[int] = set()
    baskets: list[tuple[Ints, float]] = []
    for ahead in range(max(0, min(horizon, len(kept) - first))):
        low, high = kept.start[first + ahead], kept.start[first + ahead + 1]
        fresh = [item for item in dict.fromkeys(kept.items[low:high].tolist()) if item not in seen]
        seen.update(fresh)
        if fresh:
            baskets.append((np.array(fresh, dtype=np.int64), decay**ahead))
    total = sum(weight for _, weight in baskets)
    return [(items, weight / total) for items, weight in baskets]


def windows_of(found: Sequence[Sequence[tuple[Ints, float]]]) -> Windows:
    """Return the windows of some users as arrays."""
    ahead = max((len(own) for own in found), default=0)
    width = max((len(items) for own in found for items, _ in own), default=0)
    table = np.full((len(found), ahead, width), NONE, dtype=np.int64)
    weight = np.zeros((len(found), ahead), dtype=np.float32)
    for user, own in enumerate(found):
        for place, (items, share) in enumerate(own):
            table[user, place, : len(items)] = items
            weight[user, place] = share
    return Windows(torch.from_numpy(table), torch.from_numpy(weight))


def path_rewards(
    tokens: Int[Tensor, "user path slot"],
    named: Int[Tensor, "user path step"],
    windows: Windows,
    codes: Int[Tensor, "catalogue slot"],
    category: Int[Tensor, " catalogue"],
    config: Reg4RecAlignmentConfig,
) -> Float[Tensor, "user path"]:
    """Return R_total of each path: by basket that of its best item, weighed over the window, and its consistency.

    A basket is a set of which any item is a good answer, so one is enough (our choice; with one item a basket it is
    the formula of a sequence).
    """
    real = windows.items != NONE
    items = windows.items.clamp(min=0)
    earned = item_reward(
        tokens[:, :, None, None], named[:, :, None, None], codes[items][:, None], category[items][:, None], config
    )
    best = earned.masked_fill(~real[:, None], 0.0).amax(dim=-1)
    return (best * windows.weight[:, None]).sum(dim=-1) + consistency_reward(named, config)
