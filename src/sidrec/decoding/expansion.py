"""Hypotheses in a trie and their continuations, run by run: what a step reads of the trie.

Axes: `batch` users, `beam` hypotheses of a user, `row` hypotheses of all users, `candidate` their continuations,
`node` prefixes of the catalogue, `pick` candidates kept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.decoding.openings import Openings
from sidrec.decoding.selection import NOTHING, Candidates, Picks, best, log_probs
from sidrec.decoding.trie import PrefixTrie


@dataclass(frozen=True, slots=True)
class Expansion:
    """The continuations of one step; places are those of the trie's level."""

    candidates: Candidates
    node: Int[Tensor, " candidate"]
    start: Int[Tensor, " row"]  # first place that follows each hypothesis
    first: Int[Tensor, " row"]  # its number among the candidates

    def closed(
        self, depth: int, places: Int[Tensor, "batch beam"], allowed: Bool[Tensor, "batch node"] | Openings
    ) -> Int[Tensor, " closed"] | None:
        """Return which candidates are not allowed, None where nothing is closed at this depth."""
        if isinstance(allowed, Tensor):
            user = self.candidates.row // places.shape[1]
            return torch.nonzero(~allowed.flatten().index_select(0, user * allowed.shape[1] + self.node)).flatten()
        parts = []
        if allowed.shared is not None:
            parts.append(torch.nonzero(~allowed.shared.index_select(0, self.node)).flatten())
        shut = allowed.closed[depth]
        if shut is not None:
            parts.append(shut.among(places, self.start, self.first))
        return torch.cat(parts) if parts else None

    def follow(
        self, picked: Int[Tensor, "batch pick"], past: int
    ) -> tuple[Int[Tensor, "batch pick"], Int[Tensor, "batch pick"]]:
        """Return the row that each pick continues and the pick's place; `past` where nothing was picked."""
        number = picked.clamp(min=0).flatten()
        row = self.candidates.row.index_select(0, number)
        place = number + (self.start - self.first).index_select(0, row)
        place = place.int().view(picked.shape).masked_fill_(picked == NOTHING, past)
        return row.long().view(picked.shape), place

    def codes(self, picked: Int[Tensor, "batch pick"]) -> Int[Tensor, "batch pick"]:
        """Return the code of each pick, any code where nothing was picked."""
        return self.candidates.codes.index_select(0, picked.clamp(min=0).flatten()).long().view(picked.shape)


def expand(trie: PrefixTrie, depth: int, places: Int[Tensor, "batch beam"], bias: Float[Tensor, " node"]) -> Expansion:
    """Return every continuation of the places at `depth`."""
    run = trie.continuations(depth, places.flatten())
    counts = run.end - run.start
    ends = counts.cumsum(0, dtype=torch.int32)
    first = ends - counts
    total = int(ends[-1])
    row = torch.repeat_interleave(counts, output_size=total)
    number = torch.arange(total, dtype=torch.int32, device=row.device)
    node = number + (run.start - first + run.to_node).index_select(0, row)
    codes = trie.packed_code.index_select(0, node)
    if depth + 1 == trie.num_levels and trie.some_end_early:
        # An item that ended stays as it is; the code of its own level may be none of this one.
        codes = codes.masked_fill(node < trie.starts[depth + 1], 0)
    candidates = Candidates(counts, row, codes, bias.index_select(0, node))
    return Expansion(candidates, node, run.start, first)


def picks(
    trie: PrefixTrie,
    depth: int,
    places: Int[Tensor, "batch beam"],
    scores: Float[Tensor, "batch beam"],
    logits: Float[Tensor, "batch beam code"],
    bias: Float[Tensor, " node"],
    *,
    width: int,
    allowed: Bool[Tensor, "batch node"] | Openings | None,
) -> Picks:
    """Return the continuations of the places at `depth` that a search keeps.

    At most `width`, and as many as the user with most continuations has.
    """
    run = expand(trie, depth, places, bias)
    if not len(run.node):
        nothing = scores.new_empty(len(places), 0)
        return Picks(nothing, nothing.long(), nothing.int(), nothing.long())
    found = log_probs(logits.flatten(0, 1), run.candidates)
    closed = None if allowed is None else run.closed(depth, places, allowed)
    kept, picked = best(scores, found, run.candidates, width, closed)
    row, below = run.follow(picked, past=trie.num_places(depth + 1))
    return Picks(kept, row, below, run.codes(picked))
