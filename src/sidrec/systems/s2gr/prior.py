"""How popular every prefix was before any given day: what the decoder's logits start from.

Popularity moves fast in retail, so the prior of a training point is that of its own day, seen with the delay that a
served model has: a model that learns on yesterday's counts would trust them too much when they are a month old.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.decoding.trie import ROOT, PrefixTrie
from sidrec.systems.s2gr.batches import History

# Weight of the whole past beside the recent window, in pseudo-baskets, and of never-bought items.
PAST_WEIGHT = 30.0
UNSEEN = 0.02


@dataclass(frozen=True, slots=True)
class PopularityPrior:
    """`table[d]` holds log p(node | its parent) from baskets before day `first_day + d`."""

    table: Float[Tensor, "day node"]
    first_day: int

    @classmethod
    def fit(
        cls,
        histories: Sequence[History],
        trie: PrefixTrie,
        *,
        last_day: int,
        window_days: int,
        smoothing: float = 0.0,
    ) -> Self:
        """Return the prior for every day up to `last_day`, each from the days strictly before it.

        Args:
            smoothing: purchases in the window that every item is given. Without any, a prefix of new items starts at
                next to nothing, training makes up for it by the prefix's own bias, and that bias is still there when
                the items are known and sell.
        """
        num_items = len(trie.leaf)
        first_day = min(int(history.days[0]) for history in histories)
        days = last_day - first_day + 1
        sold = np.zeros((days + 1, num_items), dtype=np.float32)
        for history in histories:
            day = np.repeat(history.days, np.diff(history.start)) - first_day
            np.add.at(sold, (np.minimum(day, days), history.items), 1.0)
        before = np.concatenate([np.zeros((1, num_items), np.float32), sold[:days].cumsum(axis=0)])[:days]
        window = before - before[np.maximum(np.arange(days) - window_days, 0)]
        past = before + UNSEEN
        mass = torch.from_numpy(window + PAST_WEIGHT * past / past.sum(axis=1, keepdims=True) + smoothing)
        return cls(_log_shares(mass.double(), trie), first_day)

    @classmethod
    def static(cls, histories: Sequence[History], trie: PrefixTrie) -> Self:
        """Return the prior of the whole fit period for every day: for data whose days carry no news."""
        counts = np.full(len(trie.leaf), UNSEEN)
        for history in histories:
            np.add.at(counts, history.items, 1.0)
        return cls(_log_shares(torch.from_numpy(counts)[None], trie), 0)

    def on(self, day: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        """Return the table's row of a day; days outside it take the nearest."""
        return (day - self.first_day).clamp(0, len(self.table) - 1)


def _log_shares(mass: Float[Tensor, "day item"], trie: PrefixTrie) -> Float[Tensor, "day node"]:
    """Return log p(node | parent) of the items' masses."""
    nodes = trie.node_sums(mass)
    nodes[:, ROOT] = 1.0
    table = nodes.log() - nodes[:, trie.parent.clamp(min=0)].log()
    # The root has no parent; level-1 nodes are shares of everything.
    low, high = trie.level_nodes(1)
    table[:, low:high] = (nodes[:, low:high] / nodes[:, low:high].sum(dim=1, keepdim=True)).log()
    table[:, ROOT] = 0.0
    return table.float()


def recent_counts(histories: Sequence[History], num_items: int, day: int, window_days: int = 28) -> NDArray[np.int64]:
    """Return in how many baskets each item was in the last days before `day`, as the catalogue counts at its end."""
    counts = np.zeros(num_items, dtype=np.int64)
    for history in histories:
        days = np.repeat(history.days, np.diff(history.start))
        np.add.at(counts, history.items[(days >= day - window_days) & (days < day)], 1)
    return counts
