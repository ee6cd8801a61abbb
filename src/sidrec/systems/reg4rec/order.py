"""Which free slot a step takes: the surest one (CRSS), one by a user's own fixed draw, or the first.

Confidence of a slot is the probability of its best code. REG4Rec (arXiv 2508.15308) reports the idea of CRSS; this
form is our choice.

Axes: `row` paths, in as many axes as there are, `slot` codebooks, `code` entries of one.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.systems.reg4rec.config import SlotOrder

# Of the hash that draws an order: odd constants, mixed in 31 bits so that every device has the same integers.
_MIX, _SLOT = 0x5BD1E995 & 0x7FFFFFFF, 0x27D4EB2F
_BITS = 0x7FFFFFFF


def preference(
    order: SlotOrder,
    log_probs: Float[Tensor, "*row slot code"],
    free: Bool[Tensor, "*row slot"],
    salt: Int[Tensor, "*row"],
) -> Float[Tensor, "*row slot"]:
    """Return how much each path wants each slot next, -inf for slots already taken; ties go to the lower slot.

    Args:
        salt: what a random order depends on, of the user; nothing else does.
    """
    slots = free.shape[-1]
    match order:
        case "confidence":
            wanted = log_probs.detach().amax(dim=-1).exp()
        case "random":
            wanted = _draw(salt, slots).to(log_probs.dtype)
        case "fixed":
            wanted = -torch.arange(slots, device=free.device, dtype=log_probs.dtype).expand(free.shape)
    return wanted.masked_fill(~free, -torch.inf)


def choose(wanted: Float[Tensor, "*row slot"], exploration: float, temperature: float) -> Int[Tensor, "*row"]:
    """Return the slot each path takes: the most wanted, or with probability `exploration` one drawn.

    The draw is in proportion to wanted^(1/T), so it is only for `confidence`; torch's own random state decides.
    """
    best = wanted.argmax(dim=-1)
    if exploration == 0:
        return best
    shares = wanted.clamp(min=0) ** (1 / temperature)
    drawn = torch.multinomial(shares.flatten(0, -2), 1).view(best.shape)
    return torch.where(torch.rand(best.shape, device=best.device) < exploration, drawn, best)


def _draw(salt: Int[Tensor, "*row"], slots: int) -> Float[Tensor, "*row slot"]:
    """Return numbers in [0, 1) that look random, by hashing the salt with each slot."""
    value = (salt[..., None] ^ (torch.arange(1, slots + 1, device=salt.device) * _SLOT)) & _BITS
    for shift in (15, 13, 16):
        value = ((value ^ (value >> shift)) * _MIX) & _BITS
    return value.double() / (_BITS + 1)
