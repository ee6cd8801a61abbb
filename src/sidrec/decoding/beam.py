"""Constrained beam search, and exact scores of chosen items, over anything that extends prefixes by a code.

Every hypothesis is a place in the trie, so nothing outside the catalogue is ever kept.

Axes: `batch` users, `beam` hypotheses, `item` chosen items, `prefix` distinct beginnings of theirs, `code` one
codebook, `node` trie nodes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.decoding import expansion, native
from sidrec.decoding.nodes import NONE
from sidrec.decoding.openings import Openings
from sidrec.decoding.selection import log_probs
from sidrec.decoding.trie import PrefixTrie


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
    allowed: Bool[Tensor, "batch node"] | Openings | None = None,
) -> Beams:
    """Return the items of the `beam_width` most probable hypotheses kept at every level.

    Log-probabilities are over the whole catalogue: `allowed` takes prefixes out of the search before it keeps any,
    and does not move their probability to others.
    """
    logits = steps.begin()
    places = torch.zeros(len(logits), 1, dtype=torch.int32, device=logits.device)
    scores = logits.new_zeros(places.shape)
    picks = native.picks if native.runs_on(logits, allowed) else expansion.picks
    for depth in range(trie.num_levels):
        beams = places.shape[1]
        kept = picks(trie, depth, places, scores, logits, bias, width=beam_width, allowed=allowed)
        if not kept.scores.shape[1]:
            return Beams(torch.full_like(places, NONE, dtype=torch.int64), scores)
        scores, places = kept.scores, kept.places
        if depth + 1 < trie.num_levels:
            logits = steps.extend(kept.row % beams, kept.codes)
    return Beams(trie.items_at(places.flatten()).view(places.shape), scores)


def score_items(
    steps: Steps,
    trie: PrefixTrie,
    bias: Float[Tensor, " node"],
    items: Int[Tensor, "batch item"],
) -> Float[Tensor, "batch item"]:
    """Return the exact log-probability of chosen items, -inf for `NONE`: one pass over their distinct prefixes."""
    logits = steps.begin()
    total = logits.new_zeros(items.shape).masked_fill(items == NONE, -torch.inf)
    if bool((items == NONE).all()):
        return total
    paths = [path.view(items.shape) for path in trie.paths(items.flatten().clamp(min=0))]
    prefixes = torch.zeros(len(items), 1, dtype=torch.int32, device=items.device)
    slot = torch.zeros_like(items)
    for depth in range(trie.num_levels):
        run = expansion.expand(trie, depth, prefixes, bias)
        found = log_probs(logits.flatten(0, 1), run.candidates)
        # Every continuation of a prefix is scored once; an item looks its own up.
        row = (slot + prefixes.shape[1] * torch.arange(len(items), device=items.device)[:, None]).flatten()
        own = run.first[row] + paths[depth + 1].flatten() - run.start[row]
        own = own.masked_fill(items.flatten() == NONE, 0)
        gained = (found.above[own] - found.log_norm[row]).view(items.shape)
        total = total + gained.masked_fill(items == NONE, 0.0)
        if depth + 1 < trie.num_levels:
            past = trie.num_places(depth + 1)
            prefixes, representative, new_slot = _distinct(paths[depth + 1].masked_fill(items == NONE, past), past)
            code = run.candidates.codes[own].long().view(items.shape)
            logits = steps.extend(slot.gather(1, representative), code.gather(1, representative))
            slot = new_slot
    return total


def _distinct(
    values: Int[Tensor, "batch item"], padding: int
) -> tuple[Int[Tensor, "batch prefix"], Int[Tensor, "batch prefix"], Int[Tensor, "batch item"]]:
    """Return each row's distinct values (padded), the column of one that has it, and where each column went."""
    ordered, columns = values.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rank = first.long().cumsum(dim=1) - 1
    width = int(rank.max()) + 1
    distinct = torch.full((len(values), width), padding, dtype=values.dtype, device=values.device).scatter(
        1, rank, ordered
    )
    # Whichever of equal columns is written last will do: they share the whole prefix.
    representative = torch.zeros_like(distinct, dtype=torch.int64).scatter(1, rank, columns)
    slot = torch.zeros_like(rank).scatter(1, columns, rank)
    return distinct, representative, slot
