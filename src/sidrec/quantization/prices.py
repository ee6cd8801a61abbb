"""Assignment with bounds on how many vectors a code may have, by prices on the codes.

A crowded code becomes dearer and an empty one cheaper until plain nearest-code assignment under prices is nearly
balanced; the few vectors that are still too many then move where it costs least. Prices start the next assignment of
like vectors close to its end.

Axes: `vector` rows, `code` entries of one codebook.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.assign import blocks_of, lowest

# The step on prices starts at this share of the mean gap between a vector's two best codes; it grows while the bounds
# are met better and shrinks when they are met worse.
_STEP, _GROW, _SHRINK = 0.25, 1.1, 0.6
# Share of vectors beyond the bounds that is left to single moves: they are cheap by then, further prices are not.
_LEFT = 0.004


def balanced_assignment(
    costs: Float[Tensor, "vector code"],
    lower: int,
    upper: int,
    *,
    prices: Float[Tensor, " code"] | None = None,
    iterations: int = 100,
) -> tuple[Int[Tensor, " vector"], Float[Tensor, " code"]]:
    """Return a code for every vector, each code taken between `lower` and `upper` times, and the prices used.

    Both bounds hold exactly; the cost is near the least possible, not equal to it.

    Args:
        prices: of an earlier assignment, to start from.

    Raises:
        UsageError: no assignment has these bounds.
    """
    count, codes = costs.shape
    if not codes * lower <= count <= codes * upper:
        raise UsageError(
            f"{count} vectors cannot be spread over {codes} codes with {lower} to {upper} each",
            next_step=f"take bounds around {count / codes:.1f}",
        )
    current = torch.zeros(codes, device=costs.device) if prices is None else prices.clone()
    two = costs[:4096].topk(min(2, codes), dim=1, largest=False).values
    ideal = count / codes
    step = _STEP * float((two[:, -1] - two[:, 0]).mean())
    best_excess, best_prices, last = codes * count, current, codes * count
    for _ in range(iterations):
        sizes = torch.bincount(_cheapest(costs, current), minlength=codes)
        excess = int((sizes - upper).clamp(min=0).sum() + (lower - sizes).clamp(min=0).sum())
        if excess < best_excess:
            best_excess, best_prices = excess, current
        if excess <= _LEFT * count:
            break
        step *= _GROW if excess < last else _SHRINK
        last = excess
        current = current + step * torch.log((sizes.to(costs.dtype) + 0.5) / ideal)
    chosen = _cheapest(costs, best_prices)
    return _repaired(costs + best_prices, chosen, lower, upper), best_prices


def _cheapest(costs: Float[Tensor, "vector code"], prices: Float[Tensor, " code"]) -> Int[Tensor, " vector"]:
    """Return each vector's code of least cost and price; sums of a block stay in the cache."""
    return torch.cat([lowest(block + prices) for block in blocks_of(costs, costs.shape[1])])


def _repaired(
    priced: Float[Tensor, "vector code"], chosen: Int[Tensor, " vector"], lower: int, upper: int
) -> Int[Tensor, " vector"]:
    """Return codes within the bounds: first what is too many moves, cheapest first, then what is too few is filled."""
    chosen = chosen.clone()
    codes = priced.shape[1]
    own = priced.gather(1, chosen[:, None]).squeeze(1)
    for filling in (False, True):
        sizes = torch.bincount(chosen, minlength=codes)
        givers = sizes > (lower if filling else upper)
        takers = sizes < (lower if filling else upper)
        wrong = sizes < lower if filling else sizes > upper
        if not bool(wrong.any()):
            continue
        rows = givers[chosen].nonzero().squeeze(1)
        columns = takers.nonzero().squeeze(1)
        extra = priced[rows][:, columns] - own[rows, None]
        room = (sizes - lower if filling else sizes - upper).tolist()  # how many a giver may still give
        need = (lower - sizes if filling else upper - sizes).tolist()  # how many a taker may still take
        order = extra.flatten().argsort(stable=True).tolist()
        of, row_ids, column_ids, width = chosen[rows].tolist(), rows.tolist(), columns.tolist(), len(columns)
        moved: dict[int, int] = {}
        for place in order:
            row, column = divmod(place, width)
            giver, taker = of[row], column_ids[column]
            if row not in moved and room[giver] > 0 and need[taker] > 0:
                moved[row] = taker
                room[giver] -= 1
                need[taker] -= 1
        for row, taker in moved.items():
            chosen[row_ids[row]] = taker
            own[row_ids[row]] = priced[row_ids[row], taker]
    return chosen
