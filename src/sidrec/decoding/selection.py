"""The best continuations of a step's hypotheses; where they come from, a trie or a set of tokens, it does not know.

Continuations lie one after the other, those of a hypothesis side by side, so that work grows with what can really
follow and not with hypotheses times the widest of them.

Axes: `batch` users, `beam` hypotheses of a user, `row` hypotheses of all users, `candidate` their continuations,
`code` one codebook, `pick` those kept.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# What a search may keep in a place that has no candidate.
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Candidates:
    """The continuations of all hypotheses, in their order."""

    counts: Int[Tensor, " row"]
    row: Int[Tensor, " candidate"]
    codes: Int[Tensor, " candidate"]
    bias: Float[Tensor, " candidate"] | None = None


class Picks(NamedTuple):
    """What a step keeps for each user, best first.

    Where there is nothing to keep, the score is -inf and the place one past all others.
    """

    scores: Float[Tensor, "batch pick"]
    row: Int[Tensor, "batch pick"]
    places: Int[Tensor, "batch pick"]
    codes: Int[Tensor, "batch pick"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities in two parts: a hypothesis with one continuation gives it exactly 0."""

    above: Float[Tensor, " candidate"]  # logit and bias, less the greatest of the hypothesis
    log_norm: Float[Tensor, " row"]


def log_probs(logits: Float[Tensor, "row code"], candidates: Candidates) -> Scores:
    """Return the log-probabilities over real continuations only; `above - log_norm` of its row is a candidate's."""
    place = torch.add(candidates.codes, candidates.row, alpha=logits.shape[1])
    values = logits.view(-1).index_select(0, place)
    if candidates.bias is not None:
        values = values + candidates.bias
    greatest = torch.segment_reduce(values, "max", lengths=candidates.counts, unsafe=True)
    above = values - greatest.index_select(0, candidates.row)
    norm = torch.segment_reduce(above.exp(), "sum", lengths=candidates.counts, unsafe=True)
    return Scores(above, norm.log())


def best(
    scores: Float[Tensor, "batch beam"],
    found: Scores,
    candidates: Candidates,
    width: int,
    closed: Int[Tensor, " closed"] | None = None,
) -> tuple[Float[Tensor, "batch pick"], Int[Tensor, "batch pick"]]:
    """Return each user's best continuations by total score, and which candidates they are.

    At most `width`, and as many as the user with most of them has. A place without a candidate has -inf and `NOTHING`.

    Args:
        scores: log-probability of each hypothesis.
        closed: candidates that are not to be kept.
    """
    total = found.above + (scores.view(-1) - found.log_norm).index_select(0, candidates.row)
    if closed is not None:
        total.index_fill_(0, closed, -torch.inf)
    batch = len(scores)
    if batch == 1 and len(total):
        values, picked = total.topk(min(width, len(total)))
        return values[None], picked.masked_fill(values == -torch.inf, NOTHING)[None]
    ends = candidates.counts.view(batch, -1).sum(dim=1).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    longest = max(1, int((ends - starts).max()))
    # Each user's candidates from the start of a line of their own.
    shift = torch.arange(batch, device=ends.device) * longest - starts
    places = shift.repeat_interleave(scores.shape[1]).index_select(0, candidates.row)
    places += torch.arange(len(total), device=ends.device)
    lines = total.new_full((batch * longest,), -torch.inf).index_copy_(0, places, total).view(batch, longest)
    values, picked = lines.topk(min(width, longest), dim=1)
    return values, (picked + starts[:, None]).masked_fill(values == -torch.inf, NOTHING)
