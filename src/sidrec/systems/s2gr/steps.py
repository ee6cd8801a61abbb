"""The generator as the beam search drives it: encoder once, caches kept, one code at a time.

Axes: `batch` users, `beam` hypotheses of a user, `code` one codebook.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.systems.s2gr.model import Decoding, Memory, S2GRModel


class GeneratorSteps:
    """Implements `sidrec.decoding.beam.Steps` over one batch of encoded histories."""

    def __init__(self, model: S2GRModel, memory: Memory) -> None:
        self.model = model
        self.memory = memory
        self.limit = memory.rank.amax(dim=1, keepdim=True)
        self._decoding: Decoding | None = None
        self._level = 0

    def begin(self) -> Float[Tensor, "batch 1 code"]:
        """Return the logits of the first code; its thinking token is shared by all hypotheses to come."""
        self._decoding = Decoding(self.model, self.memory, self.limit)
        self._level = 0
        logits, _ = self._decoding.next_logits(0, self._decoding.begin())
        return logits

    def extend(
        self, origin: Int[Tensor, "batch beam"], codes: Int[Tensor, "batch beam"]
    ) -> Float[Tensor, "batch beam next_code"]:
        """Return the next code's logits after the hypotheses `origin` were extended by `codes`."""
        assert self._decoding is not None
        self._decoding.follow(origin)
        vectors = self.model.code_in[self._level][codes]
        self._level += 1
        logits, _ = self._decoding.next_logits(self._level, vectors)
        return logits


@torch.no_grad()
def folded_bias(model: S2GRModel, prior: Float[Tensor, " node"], level: Int[Tensor, " node"]) -> Float[Tensor, " node"]:
    """Return the bias of every prefix on one day: what is learnt plus the day's weighted prior."""
    weight = torch.cat([model.prior_weight.new_zeros(1), model.prior_weight])[level]
    return model.prefix_bias.detach() + weight.detach() * prior
