"""Pre-norm blocks of the T5 kind: an encoder block, and a decoder block that takes one position at a time.

Axes: `batch` users, `pos` encoder positions, `row` decoder rows of a user, `dim` model width.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sidrec.nn.attention import Attention, KeyValues
from sidrec.nn.dropout import Dropout
from sidrec.nn.norm import RMSNorm


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between them."""

    def __init__(self, dim: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, ff_dim, bias=False), nn.ReLU(), Dropout(dropout), nn.Linear(ff_dim, dim, bias=False)
        )

    def forward(self, inputs: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """Return the transformed inputs."""
        return self.layers(inputs)  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, dim: int, num_heads: int, ff_dim: int, dropout: float, head_dim: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim)
        self.attention = Attention(dim, num_heads, head_dim)
        self.ff_norm = RMSNorm(dim)
        self.ff = FeedForward(dim, ff_dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, inputs: Float[Tensor, "batch pos dim"], bias: Float[Tensor, "batch head pos pos"]
    ) -> Float[Tensor, "batch pos dim"]:
        """Return the block's output; `bias` says who sees whom."""
        normed = self.attention_norm(inputs)
        hidden = inputs + self.dropout(self.attention(normed, self.attention.remember(normed), bias))
        return hidden + self.dropout(self.ff(self.ff_norm(hidden)))  # type: ignore[no-any-return]


class DecoderBlock(nn.Module):
    """Self-attention over a row's own positions, cross-attention to its user, feed-forward.

    One position a call: every cached position is in the past, so self-attention needs no mask. Rows of one user
    share the user's keys and values, which is why they are an axis of their own.
    """

    def __init__(self, dim: int, num_heads: int, ff_dim: int, dropout: float, head_dim: int | None = None) -> None:
        super().__init__()
        self.self_norm = RMSNorm(dim)
        self.self_attention = Attention(dim, num_heads, head_dim)
        self.cross_norm = RMSNorm(dim)
        self.cross_attention = Attention(dim, num_heads, head_dim)
        self.ff_norm = RMSNorm(dim)
        self.ff = FeedForward(dim, ff_dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        inputs: Float[Tensor, "batch row dim"],
        cache: KeyValues | None,
        memory: KeyValues,
        bias: Float[Tensor, "#batch #head #row pos"],
    ) -> tuple[Float[Tensor, "batch row dim"], KeyValues]:
        """Return the block's output at the new position, and the cache [batch * row, ...] with it appended."""
        normed = self.self_norm(inputs).flatten(0, 1)[:, None]
        new = self.self_attention.remember(normed)
        cache = new if cache is None else cache.appended(new)
        attended = self.self_attention(normed, cache)[:, 0].unflatten(0, inputs.shape[:2])
        hidden = inputs + self.dropout(attended)
        hidden = hidden + self.dropout(self.cross_attention(self.cross_norm(hidden), memory, bias))
        return hidden + self.dropout(self.ff(self.ff_norm(hidden))), cache
