"""Keys and values of decoder rows' own positions, with room for all of them from the start.

Axes: `batch` users, `beam` rows of a user, `row` rows of all users (one user's are neighbours), `layer`, `step`
positions, `inner` width of a key.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Past:
    """A block of memory whose first `length` positions are written."""

    __slots__ = ("block", "length")

    def __init__(self, block: Float[Tensor, "layer 2 step row inner"], length: int = 0) -> None:
        self.block = block
        self.length = length

    @classmethod
    def empty(cls, like: Tensor, *, layers: int, steps: int, rows: int, inner: int) -> "Past":
        """Return room for `steps` positions of each row."""
        return cls(like.new_empty(layers, 2, steps, rows, inner))

    def follow(self, origin: Int[Tensor, "batch beam"]) -> "Past":
        """Return the past of rows that go on from the rows `origin` of each user; this one stays as it is."""
        users, beams = origin.shape
        rows = self.block.shape[3]
        if users > 1:
            origin = origin + torch.arange(0, rows, rows // users, device=origin.device)[:, None]
        block = self.block.new_empty(*self.block.shape[:3], users * beams, self.block.shape[4])
        block[:, :, : self.length] = self.block[:, :, : self.length].index_select(3, origin.flatten())
        return Past(block, self.length)
