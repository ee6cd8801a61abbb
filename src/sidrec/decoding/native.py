"""A step of the search as one compiled loop: the same picks as the tensor path, without its thirty small operations.

Numba compiles it on first use and keeps the machine code beside this file, so a server needs no compiler. Other devices
and masks over all nodes take the tensor path, `sidrec.decoding.expansion.picks`.

Axes: `batch` users, `beam` hypotheses of a user, `row` hypotheses of all users, `code` one codebook, `node` prefixes of
the catalogue, `seen` excluded places, `pick` continuations kept.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.decoding.loops import NO_LIST, Bools, Floats, Ints, before, compiled, first_child
from sidrec.decoding.offsets import Exceptions
from sidrec.decoding.openings import ItemRule, Openings
from sidrec.decoding.selection import Picks
from sidrec.decoding.trie import PrefixTrie

_EVERY_NODE = np.ones(0, dtype=np.bool_)
_NOBODY = np.zeros((0, 0), dtype=np.int32)


def runs_on(logits: Tensor, allowed: Bool[Tensor, "batch node"] | Openings | None) -> bool:
    """Return whether the compiled loop can take this step."""
    kind = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.float64)
    return kind and not isinstance(allowed, Tensor)


def compile_ahead() -> None:
    """Compile what most bundles are served with, so that no server's first start has to."""
    for levels, code in ((3, 0), (4, 2**8)):  # codes of one byte, and of two
        trie = PrefixTrie.from_codes(np.full((1, levels), code, dtype=np.int32))
        scores, logits = torch.zeros(1, 1), torch.zeros(1, 1, code + 1)
        openings = ItemRule.blocking(trie, None).without(torch.zeros(1, 1, dtype=torch.int64))
        picks(trie, 0, scores.int(), scores, logits, torch.zeros(trie.num_nodes), width=1, allowed=openings)


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
    """Return the continuations of the places at `depth` that a search keeps; equal scores go to the first.

    At most `width`, and as many as the user with most continuations has.
    """
    assert not isinstance(allowed, Tensor)
    batch = len(places)
    values = scores.new_empty(batch, width)
    row = torch.empty(batch, width, dtype=torch.int64)
    place = torch.empty(batch, width, dtype=torch.int32)
    code = torch.empty(batch, width, dtype=torch.int64)
    level = trie.offsets[depth]
    closed = None if allowed is None else allowed.closed[depth]
    shared = None if allowed is None else allowed.shared
    longest = _pick(
        logits.contiguous().numpy(),
        scores.contiguous().numpy(),
        places.contiguous().numpy(),
        level.odd.numpy() if isinstance(level, Exceptions) else NO_LIST,
        level.first.numpy(),
        isinstance(level, Exceptions),
        trie.starts[depth],
        trie.starts[depth + 1],
        depth + 1 == trie.num_levels and trie.some_end_early,
        trie.num_places(depth + 1),
        trie.packed_code.numpy(),
        bias.numpy(),
        _EVERY_NODE if shared is None else shared.numpy(),
        _NOBODY if closed is None else closed.above.contiguous().numpy(),
        _NOBODY if closed is None else closed.place.contiguous().numpy(),
        values.numpy(),
        row.numpy(),
        place.numpy(),
        code.numpy(),
    )
    if longest < width:
        values, row, place, code = (kept[:, :longest].contiguous() for kept in (values, row, place, code))
    return Picks(values, row, place, code)


@compiled
def _pick(
    logits: Floats, scores: Floats, places: Ints, odd: Ints, first: Ints, listed: bool, level_start: int,
    next_start: int, some_end: bool, past: int, codes: Ints, bias: Floats, shared: Bools, closed_above: Ints,
    closed_place: Ints, out_scores: Floats, out_row: Ints, out_place: Ints, out_code: Ints,
) -> int:  # fmt: skip
    """Fill `out_*` [batch, width] and return the number of continuations of the user with most of them."""
    batch, beams = places.shape
    width = out_scores.shape[1]
    score_of = np.empty(logits.shape[2], logits.dtype)
    longest = 0
    for user in range(batch):
        kept, followed = 0, 0
        for beam in range(beams):
            place = places[user, beam]
            start = first_child(odd, first, listed, place)
            count = first_child(odd, first, listed, place + 1) - start
            followed += count
            if count == 0 or scores[user, beam] == -np.inf:
                continue
            shift = next_start
            if some_end:
                # An item that ended above keeps the node that it has there; others have none below it.
                rank = before(odd, place)
                inner = rank < len(odd) and odd[rank] == place
                shift = next_start + rank - place if inner else place + level_start - start
            greatest = -np.inf
            for child in range(count):
                node = start + child + shift
                # The code of an item that ended may be none of this level.
                code = codes[node] if node >= next_start else 0
                value = logits[user, beam, code] + bias[node]
                score_of[child] = value
                greatest = max(greatest, value)
            total = 0.0
            for child in range(count):
                score_of[child] -= greatest
                total += math.exp(score_of[child])
            base = scores[user, beam] - math.log(total)
            for child in range(count):
                score_of[child] += base
            if closed_above.shape[0]:
                for seen in range(closed_above.shape[1]):
                    if closed_above[user, seen] == place:
                        score_of[closed_place[user, seen] - start] = -np.inf
            for child in range(count):
                value = score_of[child]
                if value == -np.inf or (kept == width and value <= out_scores[user, width - 1]):
                    continue
                node = start + child + shift
                if len(shared) and not shared[node]:
                    continue
                # The last one leaves, those below move down: most continuations never come so far.
                spot = min(kept, width - 1)
                while spot > 0 and out_scores[user, spot - 1] < value:
                    out_scores[user, spot] = out_scores[user, spot - 1]
                    out_row[user, spot] = out_row[user, spot - 1]
                    out_place[user, spot] = out_place[user, spot - 1]
                    out_code[user, spot] = out_code[user, spot - 1]
                    spot -= 1
                out_scores[user, spot] = value
                out_row[user, spot] = user * beams + beam
                out_place[user, spot] = start + child
                out_code[user, spot] = codes[node] if node >= next_start else 0
                kept = min(kept + 1, width)
        longest = max(longest, followed)
        for spot in range(kept, width):
            out_scores[user, spot] = -np.inf
            out_row[user, spot] = 0
            out_place[user, spot] = past
            out_code[user, spot] = 0
    return longest
