"""Sampled answers as tokens, and the log-probability of what the policy chose in them.

Words are chosen among the whole vocabulary; codes may be chosen among those that the catalogue goes on with, and then
their probability is among those.

Axes: `row` samples, `pos` tokens of one, its prompt included, `level` codes of a semantic ID, `code` one codebook.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples with padding behind them, and which of their tokens are actions."""

    tokens: Int[Tensor, "row pos"]
    words: Bool[Tensor, "row pos"]  # actions among all words
    place: Int[Tensor, "row level"]  # of actions among codes, `NOWHERE` where there is none
    allowed: Bool[Tensor, "row level code"]  # what those were chosen among
    answers: Int[Tensor, "row level"]  # codes, `PAD` where there is none
    rationale_tokens: Int[Tensor, " row"]
    ended: Bool[Tensor, " row"]  # whether the model closed its rationale itself

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def actions(self) -> Bool[Tensor, "row pos"]:
        """Return which tokens the policy chose, one way or the other."""
        row, level = (self.place != NOWHERE).nonzero(as_tuple=True)
        codes = torch.zeros_like(self.words)
        codes[row, self.place[row, level]] = True
        return self.words | codes

    def part(self, first: int, last: int) -> "Samples":
        """Return some of the rows; what stands behind all their actions is left out."""
        part = Samples(*(getattr(self, field.name)[first:last] for field in fields(self)))
        width = 1 + int(part.actions.any(dim=0).nonzero().amax())
        return replace(part, tokens=part.tokens[:, :width], words=part.words[:, :width])


def action_log_probs(
    model: Any, level_tokens: Sequence[Int[Tensor, " code"]], samples: Samples, temperature: float
) -> Float[Tensor, "row pos"]:
    """Return the log-probability of every action after what stands before it, and 0 elsewhere."""
    states = model.base_model(input_ids=samples.tokens, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    words = samples.words[:, 1:]
    logits = head(states[:, :-1][words]).float() / temperature
    own = logits.log_softmax(dim=-1).gather(1, samples.tokens[:, 1:][words][:, None])[:, 0]
    found = torch.zeros(words.shape, dtype=own.dtype, device=own.device).masked_scatter(words, own)
    for level, tokens in enumerate(level_tokens):
        row = (samples.place[:, level] != NOWHERE).nonzero()[:, 0]
        before = samples.place[row, level] - 1
        logits = (states[row, before] @ head.weight[tokens].T).float() / temperature
        among = logits.masked_fill(~samples.allowed[row, level, : len(tokens)], -torch.inf).log_softmax(dim=-1)
        found = found.index_put((row, before), among.gather(1, samples.answers[row, level, None])[:, 0])
    return torch.nn.functional.pad(found, (1, 0))
