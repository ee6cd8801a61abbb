"""Assignment with bounds on how many vectors a code may have, by prices on the codes.

A crowded code becomes dearer and an empty one cheaper until plain nearest-code assignment under prices is nearly
balanced; what is then still too many or too few moves where it costs least. Prices start the next
assignment of like vectors close to its end.

Axes: `vector` rows, `code` entries of one codebook.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.assign import blocks_of, lowest

# A Newton step on the prices looks at the vectors nearest to a change of code: this share of them for each share that
# is beyond the bounds, and at least the second figure. A step is at most that many times their largest gap.
_SHARE, _LEAST_SHARE, _REACH = 0.4, 0.1, 10.0
# Damping of a step, relative to the mean rate at which sizes answer prices; it grows where a step was too far.
_DAMPING, _DAMPED_MORE, _DAMPED_LESS = 0.5, 4.0, 1.5
# Share of vectors beyond the bounds that is left to single moves, which are cheap by then.
_LEFT = 0.015
# Moves considered at a time.
_PAIRS = 4096


def balanced_assignment(
    costs: Float[Tensor, "vector code"],
    lower: int,
    upper: int,
    *,
    prices: Float[Tensor, " code"] | None = None,
    iterations: int = 40,
) -> tuple[Int[Tensor, " vector"], Float[Tensor, " code"]]:
    """Return a code for every vector, each code taken between `lower` and `upper` times, and the prices used.

    Both bounds hold exactly; the cost is next to the least possible (measured by `sidrec bench codebook`). Prices climb
    the dual of the transport problem by damped Newton steps: how sizes answer prices is counted from each vector's two
    cheapest codes.

    Args:
        prices: of an earlier assignment, to start from.
        iterations: steps on the prices, at most.

    Raises:
        UsageError: no assignment has these bounds.
    """
    count, codes = costs.shape
    if not codes * lower <= count <= codes * upper:
        raise UsageError(
            f"{count} vectors cannot be spread over {codes} codes with {lower} to {upper} each",
            next_step=f"take bounds around {count / codes:.1f}",
        )
    best = _look(costs, torch.zeros_like(costs[0]) if prices is None else prices.to(costs), lower, upper)
    damping = _DAMPING
    for _ in range(iterations):
        if best.excess <= _LEFT * count:
            break
        next_one = _look(costs, best.prices + _step(best, codes, damping), lower, upper)
        further = next_one.dual > best.dual
        damping = max(_DAMPING, damping / _DAMPED_LESS) if further else damping * _DAMPED_MORE
        best = next_one if further else best
    chosen = best.first
    if best.excess > 0:
        chosen = _repaired(costs, best.prices, chosen, lower, upper)
    return chosen, best.prices


@dataclass(frozen=True, slots=True)
class _Look:
    """Plain assignment under prices: each vector's two cheapest codes and how far they are apart."""

    prices: Float[Tensor, " code"]
    first: Int[Tensor, " vector"]
    second: Int[Tensor, " vector"]
    gap: Float[Tensor, " vector"]
    surplus: Float[Tensor, " code"]
    """How many vectors a code has beyond its due, the slope of the dual."""
    excess: int
    """Vectors beyond the bounds, too many and too few added."""
    dual: float


def _look(costs: Float[Tensor, "vector code"], prices: Float[Tensor, " code"], lower: int, upper: int) -> _Look:
    count, codes = costs.shape
    firsts, seconds, gaps, least = [], [], [], 0.0
    for block in blocks_of(costs, codes):
        priced = block + prices
        first = lowest(priced)
        low = priced.gather(1, first[:, None])
        priced.scatter_(1, first[:, None], torch.inf)
        gaps.append((priced.amin(dim=1, keepdim=True) - low).squeeze(1))
        firsts.append(first)
        seconds.append(lowest(priced, overwrite=True))
        least += float(low.sum(dtype=torch.float64))
    first = torch.cat(firsts)
    sizes = torch.bincount(first, minlength=codes).to(costs.dtype)
    within = sizes.clamp(lower, upper)
    # Bounds as close as these ask for one size. Wider ones bind where a price is: dear codes are full, cheap ones low.
    due = torch.full_like(sizes, count / codes)
    if upper - lower > 1:
        due = torch.where(prices > 0, upper, torch.where(prices < 0, lower, within))
    excess = int((sizes - within).abs().sum())
    dual = least - float((prices * due).sum(dtype=torch.float64))
    return _Look(prices, first, torch.cat(seconds), torch.cat(gaps), sizes - due, excess, dual)


def _step(look: _Look, codes: int, damping: float) -> Float[Tensor, " code"]:
    """Return the damped Newton step: prices whose pairwise differences move as many vectors as codes have too many."""
    count = len(look.first)
    share = min(0.9, max(_LEAST_SHARE, _SHARE * look.excess / count))
    finite = look.gap.isfinite()
    width = float(look.gap.kthvalue(max(1, int(share * count))).values) if bool(finite.any()) else 1.0
    width = max(width, 1e-6 * float(look.gap[finite].mean()) if bool(finite.any()) else 1.0, 1e-12)
    near = look.gap <= width
    pairs = torch.bincount(look.first[near] * codes + look.second[near], minlength=codes * codes)
    rate = pairs.view(codes, codes).to(look.prices.dtype)
    rate = (rate + rate.T) / (2 * width)
    answer = torch.diag(rate.sum(dim=1)) - rate
    held = damping * answer.diagonal().mean() + 1e-9
    step: Tensor = torch.linalg.solve(
        answer + held * torch.eye(codes, dtype=rate.dtype, device=rate.device), look.surplus
    )
    return step.clamp(-_REACH * width, _REACH * width)


def _repaired(
    costs: Float[Tensor, "vector code"],
    prices: Float[Tensor, " code"],
    chosen: Int[Tensor, " vector"],
    lower: int,
    upper: int,
) -> Int[Tensor, " vector"]:
    """Return codes within the bounds: first what is too many moves, cheapest first, then what is too few is filled."""
    codes = costs.shape[1]
    chosen = chosen.clone()
    for bound, filling in ((upper, False), (lower, True)):
        sizes = torch.bincount(chosen, minlength=codes)
        if not bool((sizes < lower).any() if filling else (sizes > upper).any()):
            continue
        spare, room = (sizes - bound).clamp(min=0), (bound - sizes).clamp(min=0)
        rows = (spare[chosen] > 0).nonzero().squeeze(1)
        columns = room.nonzero().squeeze(1)
        priced = costs[rows] + prices
        extra = priced[:, columns] - priced.gather(1, chosen[rows, None])
        order = extra.flatten().argsort(stable=True).cpu().numpy()
        # Every taker is filled where codes are too small; every giver is emptied to the bound where they are too large.
        wanted = int(room.sum() if filling else spare.sum())
        moves = _cheapest_moves(order, chosen[rows], columns, spare, room, wanted)
        at = torch.tensor(list(moves), dtype=torch.int64, device=rows.device)
        chosen[rows[at]] = torch.tensor(list(moves.values()), dtype=torch.int64, device=rows.device)
    return chosen


def _cheapest_moves(
    order: NDArray[np.int64],
    givers: Int[Tensor, " row"],
    takers: Int[Tensor, " taker"],
    spare: Int[Tensor, " code"],
    room: Int[Tensor, " code"],
    wanted: int,
) -> dict[int, int]:
    """Return row → taker of the first moves that are allowed when made, in the order of (row, taker) pairs."""
    giver_of, taker_of = givers.cpu().numpy(), takers.cpu().numpy()
    may_give, may_take = spare.cpu().numpy().copy(), room.cpu().numpy().copy()
    still = np.ones(len(giver_of), dtype=bool)
    moves: dict[int, int] = {}
    for part in np.split(order, range(_PAIRS, len(order), _PAIRS)):
        rows, columns = np.divmod(part, len(taker_of))
        # Most pairs are out by now; only the rest are looked at one by one.
        allowed = still[rows] & (may_give[giver_of[rows]] > 0) & (may_take[taker_of[columns]] > 0)
        for row, taker in zip(rows[allowed].tolist(), taker_of[columns[allowed]].tolist(), strict=True):
            giver = giver_of[row]
            if still[row] and may_give[giver] > 0 and may_take[taker] > 0:
                moves[row] = taker
                still[row] = False
                may_give[giver] -= 1
                may_take[taker] -= 1
                if len(moves) == wanted:
                    return moves
    return moves
