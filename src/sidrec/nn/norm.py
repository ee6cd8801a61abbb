"""RMS normalisation with its gradient in closed form: a third of the operations that autograd would record.

Axes: `dim` normalised width.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-6


class RMSNorm(nn.Module):
    """Scales each vector to root mean square 1, then each of its components by a learnt weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, inputs: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """Return the normalised inputs."""
        normed: Tensor = _RMSNorm.apply(inputs, self.weight)  # type: ignore[no-untyped-call]
        return normed


class _RMSNorm(torch.autograd.Function):
    """y = w x / rms(x); dx = (g w - n mean(g w n)) / rms with n = x / rms."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        # The mean of squares needs more than bfloat16 has.
        precise = inputs.float() if inputs.dtype == torch.bfloat16 else inputs
        rate = torch.rsqrt(precise.square().mean(dim=-1, keepdim=True) + EPSILON)
        unit = inputs * rate.to(inputs.dtype)
        ctx.save_for_backward(unit, rate, weight)
        return unit * weight.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        unit, rate, weight = ctx.saved_tensors
        scaled = gradient * weight.to(gradient.dtype)
        inputs = (scaled - unit * (scaled * unit).mean(dim=-1, keepdim=True)) * rate.to(gradient.dtype)
        return inputs, (gradient * unit).flatten(0, -2).sum(dim=0).to(weight.dtype)
