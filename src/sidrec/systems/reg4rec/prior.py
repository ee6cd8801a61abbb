"""How popular every code was before any given day: what a slot's logits start from (our choice, as in S²GR).

Axes: `day` from the first day of the histories on, `item` catalogue rows, `slot` codebooks, `code` entries of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.token_sets import TokenSets
from sidrec.systems.history import History
from sidrec.systems.popularity_masses import recent_masses, total_masses
from sidrec.systems.reg4rec.config import Reg4RecTrainingConfig

# Share of a code that no item has: it is asked for by nobody, and log 0 would spread.
FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class CodePrior:
    """`table[d]` holds the log share of every code among purchases before day `first_day + d`."""

    table: Float[Tensor, "day slot code"]
    first_day: int

    @classmethod
    def fit(
        cls, histories: Sequence[History], sets: TokenSets, training: Reg4RecTrainingConfig, *, last_day: int
    ) -> Self:
        """Return the prior that the settings ask for; each day's is from the days strictly before it."""
        if training.prior == "none":
            return cls(torch.zeros(1, sets.num_slots, sets.codebook_size), 0)
        if training.prior == "static":
            masses, first_day = torch.from_numpy(total_masses(histories, sets.num_items))[None], 0
        else:
            recent, first_day = recent_masses(
                histories,
                sets.num_items,
                last_day=last_day,
                window_days=training.prior_window_days,
                smoothing=training.prior_smoothing,
            )
            masses = torch.from_numpy(recent).double()
        return cls((sets.shares(masses) + FLOOR).log().float(), first_day)

    def of_days(self, day: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows slot code"]:
        """Return the prior of each day; days outside the table take the nearest."""
        return self.table[(day - self.first_day).clamp(0, len(self.table) - 1)]

    def to(self, device: torch.device) -> "CodePrior":
        """Return the same prior on another device."""
        return CodePrior(self.table.to(device), self.first_day)
