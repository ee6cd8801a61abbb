"""AdamW with decay on matrices only, and a learning rate that warms up and then follows one of four curves."""

import math
from collections.abc import Iterable
from typing import Literal

from torch import nn, optim

Schedule = Literal["cosine", "linear", "constant", "inverse_sqrt"]


def adamw(parameters: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, weight_decay: float) -> optim.AdamW:
    """Return an AdamW whose weight decay leaves vectors (norms, biases, offsets) alone."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for _, parameter in sorted(parameters):
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def schedule(step: int, *, total: int, warmup_share: float, kind: Schedule = "cosine") -> float:
    """Return the share of the learning rate at `step` (from 0): it rises linearly, then goes as `kind` says.

    Args:
        kind: `cosine` falls to 0 at `total` as half a cosine, `linear` as a line; `constant` stays; `inverse_sqrt`
            falls as one over the square root of the steps taken, so where the run ends does not matter to it.
    """
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    match kind:
        case "constant":
            return 1.0
        case "inverse_sqrt":
            return math.sqrt(warmup / (step + 1))
        case "linear":
            return 1 - min((step - warmup) / max(1, total - warmup), 1.0)
        case "cosine":
            progress = (step - warmup) / max(1, total - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
