"""The generator as the search drives it: encoder once, caches kept, one token at a time.

Axes: `user` encoded histories, `group` searches, as many a user as `copies` says, `beam` hypotheses of one, `slot`
codebooks, `code` entries of one.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.systems.reg4rec.model import Memory, Paths, Reg4RecModel
from sidrec.systems.reg4rec.search import Step


class PathSteps:
    """Implements `sidrec.systems.reg4rec.search.SlotSteps`; a user's groups are neighbours."""

    def __init__(
        self,
        model: Reg4RecModel,
        memory: Memory,
        prior: Float[Tensor, "slot code"],
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
        return self._step(hidden.expand(-1, self.copies, -1), 1)

    def extend(
        self, origin: Int[Tensor, "group beam"], slot: Int[Tensor, "group beam"], code: Int[Tensor, "group beam"]
    ) -> Step:
        """Return the step after the hypotheses `origin` took a token each."""
        assert self._paths is not None
        before = self._paths.shape[1] // self.copies
        kept = origin.shape[1]
        first = before * torch.arange(self.copies, device=origin.device)[:, None]
        self._paths.follow((origin.view(self.users, self.copies, kept) + first).flatten(1))
        self._tokens += 1
        rows = (self.users, self.copies * kept)
        return self._step(self._paths.extend(slot.reshape(rows), code.reshape(rows)), kept)

    def _step(self, hidden: Float[Tensor, "user row dim"], beams: int) -> Step:
        log_probs = self.model.slot_log_probs(hidden, self.prior[None, None], self._tokens)
        groups = (self.users * self.copies, beams)
        category = self.model.category_log_probs(hidden).argmax(dim=-1).view(groups) if self.categories else None
        return Step(log_probs.reshape(*groups, *log_probs.shape[2:]), category)
