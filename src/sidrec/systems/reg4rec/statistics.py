"""What a search says of itself in the exposure log: where paths begin, how many orders they take, what CORP leaves.

Axes: `group` searches, `kept` hypotheses of one after a step, `beam` before it, `slot` codebooks.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from sidrec.systems.reg4rec.search import Taken

FIRST_SLOT = "first_slot"
ORDER_ENTROPY = "order_entropy"
PRUNING_SURVIVAL = "pruning_survival"


def statistics(steps: Sequence[Taken], num_slots: int) -> list[dict[str, float]]:
    """Return each group's numbers by name.

    `first_slot`: what the best path's first step took. `order_entropy`: of the slots that hypotheses took at one step,
    in nats, mean over the steps after the first; 0 is one order for all. `pruning_survival`: share of the hypotheses
    tested by CORP that passed; absent where none was tested.
    """
    first = steps[0].slot[:, 0].tolist()
    later = [slot_entropy(step, num_slots) for step in steps[1:]]
    entropy = torch.stack(later).mean(dim=0).tolist() if later else [0.0] * len(first)
    tested = torch.stack([step.tested.sum(dim=1) for step in steps]).sum(dim=0).tolist()
    dropped = torch.stack([step.dropped.sum(dim=1) for step in steps]).sum(dim=0).tolist()
    rows = [{FIRST_SLOT: float(slot), ORDER_ENTROPY: round(nats, 4)} for slot, nats in zip(first, entropy, strict=True)]
    for row, seen, out in zip(rows, tested, dropped, strict=True):
        if seen:
            row[PRUNING_SURVIVAL] = round(1 - out / seen, 4)
    return rows


def slot_entropy(step: Taken, num_slots: int) -> Float[Tensor, " group"]:
    """Return the entropy of the slots that a group's living hypotheses took; 0 where none lives."""
    counts = (one_hot(step.slot, num_slots) * step.alive[..., None]).sum(dim=1).double()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.xlogy(shares, shares).sum(dim=1).neg().clamp(min=0)
