"""The generator as the search drives it: encoder once, caches kept, one token at a time.

Axes: `user` encoded histories, `group` searches, as many a user as `copies` says, `beam` hypotheses of one, `slot`
codebooks, `code` entries of one.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.token_sets import Matches
from sidrec.systems.reg4rec.model import Memory, Paths, Reg4RecModel
from sidrec.systems.reg4rec.prior import CodePrior
from sidrec.systems.reg4rec.search import Step


class PathSteps:
    """Implements `sidrec.systems.reg4rec.search.SlotSteps`; a user's groups are neighbours.

    Args:
        prior: of the one day that answers are of.
    """

    def __init__(
        self,
        model: Reg4RecModel,
        memory: Memory,
        prior: CodePrior,
        *,
        copies: int = 1,
        categories: bool = False,
    ) -> None:
        self.model, self.memory, self.prior = model, memory, prior
        self.copies, self.categories = copies, categories
        self.users = len(memory.rank)
        self._paths: Paths | None = None
        self._tokens = 0

    def begin(self) -> Step:
        """Return the first step; it is the same for all groups of a user."""
        limit = self.memory.rank.amax(dim=1, keepdim=True)
        self._paths, self._tokens = Paths(self.model, self.memory, limit), 0
        hidden = self._paths.begin()
        self._paths.fork(self.copies)
        today = torch.zeros(1, 1, dtype=torch.int64, device=hidden.device)
        return self._step(hidden.expand(-1, self.copies, -1), 1, self.prior.of_days(today))

    def extend(
        self,
        origin: Int[Tensor, "group beam"],
        slot: Int[Tensor, "group beam"],
        code: Int[Tensor, "group beam"],
        matches: Matches,
    ) -> Step:
        """Return the step after the hypotheses `origin` took a token each."""
        assert self._paths is not None
        before = self._paths.shape[1] // self.copies
        kept = origin.shape[1]
        first = before * torch.arange(self.copies, device=origin.device)[:, None]
        self._paths.follow((origin.view(self.users, self.copies, kept) + first).flatten(1))
        self._tokens += 1
        rows = (self.users, self.copies * kept)
        hidden = self._paths.extend(slot.reshape(rows), code.reshape(rows))
        prior = self.prior.given(matches, torch.zeros_like(slot).flatten())
        return self._step(hidden, kept, prior.view(*rows, *prior.shape[1:]))

    def _step(
        self, hidden: Float[Tensor, "user row dim"], beams: int, prior: Float[Tensor, "#user #row slot code"]
    ) -> Step:
        log_probs = self.model.slot_log_probs(hidden, prior, self._tokens)
        groups = (self.users * self.copies, beams)
        category = self.model.category_log_probs(hidden).argmax(dim=-1).view(groups) if self.categories else None
        return Step(log_probs.reshape(*groups, *log_probs.shape[2:]), category)
