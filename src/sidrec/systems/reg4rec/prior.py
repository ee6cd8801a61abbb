"""How popular every code was before any given day, among the items that still match: what logits start from.

Before any token that is a code's share of all purchases; after some, its share of those of the items that have them.
A model that has learnt nothing then ranks by popularity, and a step spends nothing on what the catalogue already says
(our choice; S²GR has the same along its trie).

Axes: `day` from the first day of the histories on, `item` catalogue rows, `row` paths, `slot` codebooks, `code` entries
of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.token_sets import Matches, TokenSets
from sidrec.systems.history import History
from sidrec.systems.popularity_masses import recent_masses, total_masses
from sidrec.systems.reg4rec.config import Reg4RecTrainingConfig

# Share of a code that no matching item has: nobody asks for it, and log 0 would spread.
FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class CodePrior:
    """`masses[d]` holds every item's purchases before day `first_day + d`; all zero is no prior."""

    sets: TokenSets
    masses: Float[Tensor, "day item"]
    first_day: int

    @classmethod
    def fit(
        cls, histories: Sequence[History], sets: TokenSets, training: Reg4RecTrainingConfig, *, last_day: int
    ) -> "CodePrior":
        """Return the prior that the settings ask for; each day's is from the days strictly before it."""
        if training.prior == "none":
            return cls(sets, torch.zeros(1, sets.num_items), 0)
        if training.prior == "static":
            return cls(sets, torch.from_numpy(total_masses(histories, sets.num_items))[None].float(), 0)
        masses, first_day = recent_masses(
            histories,
            sets.num_items,
            last_day=last_day,
            window_days=training.prior_window_days,
            smoothing=training.prior_smoothing,
        )
        return cls(sets, torch.from_numpy(masses).float(), first_day)

    def on(self, day: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        """Return the row of `masses` of a day; days outside take the nearest."""
        return (day - self.first_day).clamp(0, len(self.masses) - 1)

    def of_days(self, day: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows slot code"]:
        """Return the log shares before any token."""
        days, place = self.on(day).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        shares: Tensor = _log_shares(self.sets.token_sums(self.masses[days]))[place]
        return shares

    def given(self, matches: Matches, day: Int[Tensor, " row"]) -> Float[Tensor, "row slot code"]:
        """Return the log shares among each row's matches; zeros where nothing with a mass matches."""
        sets = self.sets
        mass = self.masses[self.on(day)[matches.row], matches.item]
        tokens = sets.codes[matches.item] + torch.arange(sets.num_slots, device=mass.device) * sets.codebook_size
        width = sets.num_slots * sets.codebook_size
        sums = mass.new_zeros(matches.num_rows * width)
        sums.index_add_(0, (matches.row[:, None] * width + tokens).flatten(), mass.repeat_interleave(sets.num_slots))
        return _log_shares(sums.view(matches.num_rows, sets.num_slots, sets.codebook_size))

    def to(self, device: torch.device) -> "CodePrior":
        """Return the same prior on another device."""
        return CodePrior(self.sets.to(device), self.masses.to(device), self.first_day)


def _log_shares(sums: Float[Tensor, "*rows slot code"]) -> Float[Tensor, "*rows slot code"]:
    total = sums.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, (sums / total.clamp(min=1e-30) + FLOOR).log(), torch.zeros_like(sums))
