"""Constrained beam search, and exact scores of chosen items, over anything that extends prefixes by a code.

Every hypothesis is a trie node, so nothing outside the catalogue is ever kept.

Axes: `batch` users, `beam` hypotheses, `item` chosen items, `code` one codebook, `node` trie nodes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.decoding.trie import NONE, ROOT, PrefixTrie, child_log_probs


@runtime_checkable
class Steps(Protocol):
    """A decoder in the middle of its work; it holds its own caches."""

    def begin(self) -> Float[Tensor, "batch 1 code"]:
        """Return the logits of the first code, forgetting any earlier hypotheses."""
        ...

    def extend(
        self, origin: Int[Tensor, "batch beam"], codes: Int[Tensor, "batch beam"]
    ) -> Float[Tensor, "batch beam next_code"]:
        """Return the next code's logits after the hypotheses `origin` of the last step were extended by `codes`."""
        ...


@dataclass(frozen=True, slots=True)
class Beams:
    """Items found, best first; `NONE` and -inf where fewer than the beam width are allowed."""

    items: Int[Tensor, "batch beam"]
    log_probs: Float[Tensor, "batch beam"]


def beam_search(
    steps: Steps,
    trie: PrefixTrie,
    bias: Float[Tensor, " node"],
    *,
    beam_width: int,
    allowed: Bool[Tensor, "batch node"] | None = None,
) -> Beams:
    """Return the items of the `beam_width` most probable hypotheses kept at every level.

    Log-probabilities are over the whole catalogue: `allowed` takes prefixes out of the search before it keeps any,
    and does not move their probability to others.
    """
    logits = steps.begin()
    batch = logits.shape[0]
    nodes = torch.full((batch, 1), ROOT, device=logits.device)
    scores = logits.new_zeros(batch, 1)
    for depth in range(trie.num_levels):
        children = trie.children(nodes, trie.max_children[depth])
        step_scores = child_log_probs(logits, bias[children.clamp(min=0)], children, trie.code)
        # An item that ended above the last level stays in the race as it is.
        ended = torch.where(trie.item[nodes.clamp(min=0)] != NONE, nodes, NONE)
        ended = torch.where(nodes == NONE, NONE, ended)
        candidates = torch.cat([children, ended[..., None]], dim=-1)
        step_scores = torch.cat([step_scores, step_scores.new_zeros(*nodes.shape, 1)], dim=-1)
        totals = (scores[..., None] + step_scores).masked_fill(candidates == NONE, -torch.inf).flatten(1)
        candidates = candidates.flatten(1)
        if allowed is not None:
            permitted = allowed.gather(1, candidates.clamp(min=0))
            totals = totals.masked_fill(~permitted, -torch.inf)
        width = min(beam_width, totals.shape[1])
        scores, picked = totals.topk(width, dim=1)
        nodes = candidates.gather(1, picked).masked_fill(scores == -torch.inf, NONE)
        if depth + 1 < trie.num_levels:
            fan_out = children.shape[-1] + 1
            logits = steps.extend(picked // fan_out, trie.code[nodes.clamp(min=0)].clamp(min=0))
    items = torch.where(nodes == NONE, NONE, trie.item[nodes.clamp(min=0)])
    return Beams(items, scores)


def score_items(
    steps: Steps,
    trie: PrefixTrie,
    bias: Float[Tensor, " node"],
    items: Int[Tensor, "batch item"],
) -> Float[Tensor, "batch item"]:
    """Return the exact log-probability of chosen items, -inf for `NONE`: one pass over their distinct prefixes."""
    logits = steps.begin()
    total = logits.new_zeros(items.shape).masked_fill(items == NONE, -torch.inf)
    if items.shape[1] == 0:
        return total
    ancestors = trie.ancestors
    prefixes = torch.full((items.shape[0], 1), ROOT, device=items.device)
    slot = torch.zeros_like(items)
    for depth in range(trie.num_levels):
        node = torch.where(items == NONE, NONE, ancestors[items.clamp(min=0), depth])
        # [batch, prefix, child] holds every continuation once; an item looks its own up.
        children = trie.children(prefixes, trie.max_children[depth])
        step_scores = child_log_probs(logits, bias[children.clamp(min=0)], children, trie.code)
        place = (node - trie.child_start[prefixes.clamp(min=0).gather(1, slot)]).clamp(min=0)
        moved = node != prefixes.gather(1, slot)
        flat = slot * children.shape[-1] + place.clamp(max=children.shape[-1] - 1)
        gained = step_scores.flatten(1).gather(1, flat)
        total = total + torch.where(moved & (node != NONE), gained, 0.0)
        if depth + 1 < trie.num_levels:
            # A finished leaf needs no further step, only a place that its column can point to.
            prefixes, representative, new_slot = _distinct(node)
            logits = steps.extend(slot.gather(1, representative), trie.code[prefixes.clamp(min=0)].clamp(min=0))
            slot = new_slot
    return total


def _distinct(
    values: Int[Tensor, "batch item"],
) -> tuple[Int[Tensor, "batch prefix"], Int[Tensor, "batch prefix"], Int[Tensor, "batch item"]]:
    """Return each row's distinct values (`NONE`-padded), the column of one that has it, and where each column went."""
    ordered, columns = values.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rank = first.long().cumsum(dim=1) - 1
    width = int(rank.max()) + 1
    distinct = torch.full((values.shape[0], width), NONE, device=values.device).scatter(1, rank, ordered)
    # Whichever of equal columns is written last will do: they share the whole prefix.
    representative = torch.zeros_like(distinct).scatter(1, rank, columns)
    slot = torch.zeros_like(values).scatter(1, columns, rank)
    return distinct, representative, slot
