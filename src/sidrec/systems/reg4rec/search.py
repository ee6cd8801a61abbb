"""Beam search over paths of slots: CRSS picks each hypothesis's next slot, the catalogue its codes, CORP prunes.

What is maximised. A path is a sequence of tokens (slot, code). At each step it may take the slots that `order` wants
most (`slots_per_step` of them, one by default). A token's probability is that of its code among the codes that the
catalogue's items with the path's tokens have in that slot, so a path never leaves the catalogue, and its score is the
sum of its tokens' log-probabilities. Paths of one set of tokens are merged: the better one goes on for the
set, of equal ones that with the lower last slot. An item's score is that of the path left for its whole set.

With one slot a step no two paths meet: the order of slots follows from the path, so every item has one path, and
scores are log-probabilities that sum to one over the catalogue. Closed items take no path away from others: their
probability stays theirs.

Source: inference of REG4Rec (arXiv 2508.15308); constraint, merging, threshold and refill are our choice.

Axes: `group` searches that share nothing, `beam` hypotheses of one, `slot` codebooks, `code` entries of one, `item`
catalogue rows, `pool` candidates, best first.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sidrec.decoding.nodes import NONE
from sidrec.decoding.token_sets import Matches, TokenSets, is_set
from sidrec.systems.reg4rec.config import SlotOrder
from sidrec.systems.reg4rec.order import preference


@dataclass(frozen=True, slots=True)
class Step:
    """What a decoder says before a path's next token: of every slot's codes, and the category it names."""

    log_probs: Float[Tensor, "group beam slot code"]
    category: Int[Tensor, "group beam"] | None


@runtime_checkable
class SlotSteps(Protocol):
    """A decoder in the middle of its work; it holds its own caches."""

    def begin(self) -> Step:
        """Return the step before any token, one hypothesis a group."""
        ...

    def extend(
        self,
        origin: Int[Tensor, "group beam"],
        slot: Int[Tensor, "group beam"],
        code: Int[Tensor, "group beam"],
        matches: Matches,
    ) -> Step:
        """Return the step after the hypotheses `origin` of the last one took a token each.

        Args:
            matches: the items that match each hypothesis, closed ones too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pruning:
    """CORP: from step `first` on, paths whose neighbouring categories agree less than `consistency` are dropped.

    Fewer than `refill` are never left: the best of those dropped come back behind all that were not.
    """

    consistency: float
    first: int
    refill: Int[Tensor, " group"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What one step did: the slots that kept hypotheses took, and which of those before it CORP dropped."""

    slot: Int[Tensor, "group kept"]
    alive: Bool[Tensor, "group kept"]
    tested: Bool[Tensor, "group beam"]  # hypotheses alive before a step that prunes, none before others
    dropped: Bool[Tensor, "group beam"]


@dataclass(frozen=True, slots=True)
class Found:
    """Items found, best first; `NONE` and -inf where fewer than the beam width are open."""

    items: Int[Tensor, "group beam"]
    scores: Float[Tensor, "group beam"]
    steps: tuple[Taken, ...]
    """Fewer than slots where nothing was left to choose."""


@dataclass(frozen=True, slots=True)
class Beams:
    """Hypotheses between two steps."""

    scores: Float[Tensor, "group beam"]
    free: Bool[Tensor, "group beam slot"]
    tokens: Int[Tensor, "group beam slot"]  # codes by slot, NONE while free
    agreeing: Int[Tensor, "group beam"]  # neighbouring steps of one category
    named: Int[Tensor, "group beam"]  # category of the last step
    matches: Matches | None  # None before the first token

    def are_items(self) -> bool:
        """Return whether every hypothesis that is alive has one match."""
        assert self.matches is not None
        return bool(((self.matches.counts <= 1) | (self.scores.flatten() == -torch.inf)).all())


@dataclass(frozen=True, slots=True)
class Open:
    """Which items a search may find: all but those `closed`, or the one item of each group that is `wanted`."""

    closed: UInt8[Tensor, "group byte"] | None = None
    wanted: Int[Tensor, " group"] | None = None

    def keeps(self, matches: Matches, beams: int) -> Bool[Tensor, " match"] | None:
        """Return which matches may be found, None for all."""
        group = matches.row // beams
        if self.wanted is not None:
            return matches.item == self.wanted[group]
        return None if self.closed is None else ~is_set(self.closed, group, matches.item)


@torch.no_grad()
def search(
    steps: SlotSteps,
    sets: TokenSets,
    *,
    width: int,
    order: SlotOrder,
    salt: Int[Tensor, " group"],
    openings: Open,
    slots_per_step: int = 1,
    pruning: Pruning | None = None,
) -> Found:
    """Return the best open items of each group that a beam of `width` finds; exact where nothing has to be cut."""
    step = steps.begin()
    groups, slots = len(salt), sets.num_slots
    beams = _start(step, groups, slots)
    taken: list[Taken] = []
    for depth in range(slots):
        tries = min(slots_per_step, slots - depth)
        wanted = preference(order, step.log_probs, beams.free, salt[:, None].expand(beams.scores.shape))
        tried = wanted.topk(tries, dim=-1).indices
        totals = torch.stack([_totals(beams, step, sets, tried[..., index], openings) for index in range(tries)], dim=2)
        beams = _named(beams, step, depth)
        tested, dropped = torch.zeros_like(beams.scores, dtype=torch.bool), None
        if pruning is not None and depth + 1 >= pruning.first:
            tested, dropped = beams.scores > -torch.inf, beams.agreeing < pruning.consistency * depth
        pool = _pool(totals, dropped, width * (depth + 1 if slots_per_step > 1 else 1))
        beams, origin, slot, code = _kept(beams, sets, tried, pool, width, pruning, merge=slots_per_step > 1)
        out = tested if dropped is None else tested & dropped
        taken.append(Taken(slot, beams.scores > -torch.inf, tested, out))
        # A path with one item left has nothing to choose: what follows is certain, and no category is asked for.
        certain = pruning is None and slots_per_step == 1 and beams.are_items()
        if depth + 1 == slots or certain:
            break
        assert beams.matches is not None
        step = steps.extend(origin, slot, code, beams.matches)
    assert beams.matches is not None
    items = beams.matches.only().view(beams.scores.shape)
    scores, place = beams.scores.sort(dim=1, descending=True, stable=True)
    return Found(items.gather(1, place).masked_fill(scores == -torch.inf, NONE), scores, tuple(taken))


def _start(step: Step, groups: int, slots: int) -> Beams:
    device = step.log_probs.device
    return Beams(
        scores=step.log_probs.new_zeros(groups, 1),
        free=torch.ones(groups, 1, slots, dtype=torch.bool, device=device),
        tokens=torch.full((groups, 1, slots), NONE, device=device),
        agreeing=torch.zeros(groups, 1, dtype=torch.int64, device=device),
        named=torch.full((groups, 1), NONE, device=device),
        matches=None,
    )


def _totals(
    beams: Beams, step: Step, sets: TokenSets, slot: Int[Tensor, "group beam"], openings: Open
) -> Float[Tensor, "group beam code"]:
    """Return the score of every hypothesis after each code of one slot; -inf where no open item goes on so."""
    if beams.matches is None:
        real, left = _first_codes(sets, openings, slot)
    else:
        flat = slot.flatten()
        real = sets.codes_left(beams.matches, flat)
        keep = openings.keeps(beams.matches, slot.shape[1])
        left = real if keep is None else sets.codes_left(beams.matches, flat, keep)
        real, left = real.view(*slot.shape, -1), left.view(*slot.shape, -1)
    index = slot[..., None, None].expand(-1, -1, -1, sets.codebook_size)
    log_probs = step.log_probs.gather(2, index)[:, :, 0].masked_fill(~real, -torch.inf).log_softmax(dim=-1)
    # A hypothesis without a match has no code at all, and its softmax is not a number.
    return (beams.scores[..., None] + log_probs).masked_fill(~left | ~real, -torch.inf)


def _first_codes(
    sets: TokenSets, openings: Open, slot: Int[Tensor, "group 1"]
) -> tuple[Bool[Tensor, "group 1 code"], Bool[Tensor, "group 1 code"]]:
    groups = torch.arange(len(slot), device=slot.device)
    real, left = sets.first_codes_left(openings.closed, len(slot))
    own = left[groups, slot[:, 0]]
    if openings.wanted is not None:
        code = sets.codes[openings.wanted, slot[:, 0]]
        own = torch.zeros_like(own).scatter(1, code[:, None], True)
    return real[slot[:, 0]][:, None], own[:, None]


def _named(beams: Beams, step: Step, depth: int) -> Beams:
    """Return the hypotheses with the category of this step taken into account."""
    if step.category is None:
        return beams
    agrees = (step.category == beams.named).long() if depth else torch.zeros_like(step.category)
    return Beams(beams.scores, beams.free, beams.tokens, beams.agreeing + agrees, step.category, beams.matches)


@dataclass(frozen=True, slots=True)
class _Pool:
    scores: Float[Tensor, "group pool"]
    place: Int[Tensor, "group pool"]  # flat index into [beam, try, code]
    dropped: Bool[Tensor, "group pool"]


def _pool(
    totals: Float[Tensor, "group beam tried code"], dropped: Bool[Tensor, "group beam"] | None, size: int
) -> _Pool:
    """Return the best candidates, as many of those to be dropped as of the others."""

    def best(values: Float[Tensor, "group beam tried code"]) -> tuple[Tensor, Tensor]:
        flat = values.flatten(1)
        found = flat.topk(min(size, flat.shape[1]), dim=1)
        return found.values, found.indices

    if dropped is None:
        scores, place = best(totals)
        return _Pool(scores, place, torch.zeros_like(place, dtype=torch.bool))
    good = best(totals.masked_fill(dropped[..., None, None], -torch.inf))
    bad = best(totals.masked_fill(~dropped[..., None, None], -torch.inf))
    scores, place = torch.cat([good[0], bad[0]], dim=1), torch.cat([good[1], bad[1]], dim=1)
    flags = torch.zeros_like(place, dtype=torch.bool)
    flags[:, good[0].shape[1] :] = True
    return _Pool(scores, place, flags)


def _kept(
    beams: Beams,
    sets: TokenSets,
    tried: Int[Tensor, "group beam tried"],
    pool: _Pool,
    width: int,
    pruning: Pruning | None,
    *,
    merge: bool,
) -> tuple[Beams, Int[Tensor, "group kept"], Int[Tensor, "group kept"], Int[Tensor, "group kept"]]:
    """Return the hypotheses of the next step, and whose continuation by which token each is."""
    tries, size = tried.shape[2], sets.codebook_size
    origin = pool.place // (tries * size)
    slot = tried.flatten(1).gather(1, pool.place // size)
    code = pool.place % size
    tokens = _rows(beams.tokens, origin).scatter(2, slot[..., None], code[..., None])
    scores = pool.scores.masked_fill(_doubled(tokens, slot, pool.scores), -torch.inf) if merge else pool.scores
    alive = scores > -torch.inf
    if pruning is not None:
        survivors = (alive & ~pool.dropped).sum(dim=1, keepdim=True)
        # The best of those dropped, in their order, as far as survivors leave room below `refill`.
        ahead = (alive & pool.dropped).long().cumsum(dim=1)
        back = pool.dropped & (ahead <= (pruning.refill[:, None] - survivors).clamp(min=0))
        alive = alive & (~pool.dropped | back)
        scores = scores.masked_fill(~alive, -torch.inf)
    rank = torch.where(alive, pool.dropped.long(), 2)
    by_score = scores.argsort(dim=1, descending=True, stable=True)
    place = by_score.gather(1, rank.gather(1, by_score).argsort(dim=1, stable=True))[:, :width]
    origin, slot, code = origin.gather(1, place), slot.gather(1, place), code.gather(1, place)
    tokens = _rows(tokens, place)
    kept = Beams(
        scores=scores.gather(1, place),
        free=tokens == NONE,
        tokens=tokens,
        agreeing=beams.agreeing.gather(1, origin),
        named=beams.named.gather(1, origin),
        matches=_matches(beams.matches, sets, origin, slot, code, tried.shape[1]),
    )
    return kept, origin, slot, code


def _matches(
    before: Matches | None,
    sets: TokenSets,
    origin: Int[Tensor, "group kept"],
    slot: Int[Tensor, "group kept"],
    code: Int[Tensor, "group kept"],
    beams: int,
) -> Matches:
    if before is None:
        return sets.first(slot.flatten(), code.flatten())
    rows = origin + beams * torch.arange(len(origin), device=origin.device)[:, None]
    return sets.narrowed(before, rows.flatten(), slot.flatten(), code.flatten())


def _doubled(
    tokens: Int[Tensor, "group pool slot"], last: Int[Tensor, "group pool"], scores: Float[Tensor, "group pool"]
) -> Bool[Tensor, "group pool"]:
    """Return which candidates have a set that a better one has as well, or an equal one whose last slot is lower.

    Two of one set never have the same last slot: they would have one set before it, and sets are merged.
    """
    groups, pool, _ = tokens.shape
    by_slot = last.argsort(dim=1, stable=True)
    order = by_slot.gather(1, scores.gather(1, by_slot).argsort(dim=1, descending=True, stable=True))
    rank = torch.zeros_like(order).scatter(1, order, torch.arange(pool, device=tokens.device).expand(groups, -1))
    group = torch.arange(groups, device=tokens.device)[:, None, None].expand(-1, pool, 1)
    _, same = torch.cat([group, tokens], dim=2).flatten(0, 1).unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    first = torch.full_like(same, pool).scatter_reduce(0, same, rank.flatten(), "amin")
    return (rank.flatten() > first[same]).view(groups, pool)


def _rows(values: Int[Tensor, "group beam slot"], index: Int[Tensor, "group pool"]) -> Int[Tensor, "group pool slot"]:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
