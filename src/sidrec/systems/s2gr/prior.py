"""How popular every prefix was before any given day: what the decoder's logits start from.

Popularity moves fast in retail, so the prior of a training point is that of its own day, seen with the delay that a
served model has: a model that learns on yesterday's counts would trust them too much when they are a month old.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.trie import ROOT, PrefixTrie
from sidrec.systems.history import History
from sidrec.systems.popularity_masses import recent_masses, total_masses


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
        masses, first_day = recent_masses(
            histories, len(trie.leaf), last_day=last_day, window_days=window_days, smoothing=smoothing
        )
        mass = torch.from_numpy(masses)
        return cls(_log_shares(mass.double(), trie), first_day)

    @classmethod
    def static(cls, histories: Sequence[History], trie: PrefixTrie) -> Self:
        """Return the prior of the whole fit period for every day: for data whose days carry no news."""
        counts = total_masses(histories, len(trie.leaf))
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
