"""Dropout whose mask costs a byte of randomness an element instead of a draw of its own.

On a CPU `nn.Dropout` spends a sixth of a small transformer's training step drawing Bernoulli numbers one by one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout

LEVELS = 256


class Dropout(nn.Module):
    """Zeroes elements with probability `rate`, rounded to 1/256, and scales the others up; nothing in evaluation."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = round(rate * LEVELS)
        if not 0 <= self.threshold < LEVELS:
            raise ValueError(f"a dropout rate lies in [0, 1), this is {rate}")

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the inputs with some of them dropped; the mask comes from torch's own random state."""
        if not self.training or self.threshold == 0:
            return inputs
        if inputs.device.type != "cpu":
            return dropout(inputs, self.threshold / LEVELS)
        words = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= self.threshold
        return inputs * (kept * (LEVELS / (LEVELS - self.threshold))).to(inputs.dtype)
