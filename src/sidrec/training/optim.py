"""AdamW with decay on matrices only, and a warm-up followed by a cosine to zero."""

import math
from collections.abc import Iterable

from torch import nn, optim


def adamw(parameters: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, weight_decay: float) -> optim.AdamW:
    """Return an AdamW whose weight decay leaves vectors (norms, biases, offsets) alone."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for _, parameter in sorted(parameters):
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), foreach=True)


def schedule(step: int, *, total: int, warmup_share: float) -> float:
    """Return the share of the learning rate at `step` (from 0): rises linearly, then falls as half a cosine."""
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
