"""Attention by the definition: one projection each for queries, keys, values; a bias a head may add.

Axes: `batch` rows, `query` and `key` positions, `dim` model width, `head` times `head_dim` is `inner`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

FEW_KEYS = 16


class KeyValues:
    """Keys and values of the positions seen so far, [batch, head, key, head_dim] each."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    def appended(self, other: "KeyValues") -> "KeyValues":
        """Return a cache with the other's positions after this one's; gradients flow through both."""
        return KeyValues(torch.cat([self.keys, other.keys], dim=2), torch.cat([self.values, other.values], dim=2))

    def rows(self, index: Int[Tensor, " row"]) -> "KeyValues":
        """Return the cache of chosen batch rows, in the order given."""
        return KeyValues(self.keys[index], self.values[index])


class Attention(nn.Module):
    """Multi-head attention; whoever calls it keeps the keys and values."""

    def __init__(self, dim: int, num_heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        inner = num_heads * (head_dim or dim // num_heads)
        self.query = nn.Linear(dim, inner, bias=False)
        self.key = nn.Linear(dim, inner, bias=False)
        self.value = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)

    def remember(self, inputs: Float[Tensor, "batch key dim"]) -> KeyValues:
        """Return the keys and values of `inputs`."""
        return KeyValues(self._heads(self.key(inputs)), self._heads(self.value(inputs)))

    def forward(
        self,
        queries: Float[Tensor, "batch query dim"],
        memory: KeyValues,
        bias: Float[Tensor, "#batch #head #query key"] | None = None,
    ) -> Float[Tensor, "batch query dim"]:
        """Return what each query reads from `memory`; a bias of -inf hides a key from a query."""
        # On the weights the scale costs one small product; on the scores it would be one of their whole size.
        scale = (self.query.out_features // self.num_heads) ** -0.5
        heads = self._heads(linear(queries, self.query.weight * scale))
        if heads.shape[2] == 1 and memory.keys.shape[2] <= FEW_KEYS and bias is None:
            # A decoder row's own past: thousands of products of a few numbers, which a batched product is bad at.
            weights = (heads * memory.keys).sum(dim=-1).softmax(dim=-1)
            read = (weights[..., None] * memory.values).sum(dim=2, keepdim=True)
        else:
            scores = heads @ memory.keys.transpose(-1, -2)
            if bias is not None:
                scores = scores + bias
            read = scores.softmax(dim=-1) @ memory.values
        return self.out(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _heads(self, inputs: Float[Tensor, "batch key inner"]) -> Float[Tensor, "batch head key head_dim"]:
        return inputs.view(*inputs.shape[:2], self.num_heads, -1).transpose(1, 2)


class DistanceBias(nn.Module):
    """A learnt bias a head and distance in time order; padding is hidden and, where `causal`, the future too."""

    def __init__(self, num_heads: int, max_distance: int, *, causal: bool = True) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.causal = causal
        distances = max_distance + 1 if causal else 2 * max_distance + 1
        self.table = nn.Parameter(torch.zeros(num_heads, distances))

    def forward(
        self, query_rank: Int[Tensor, "batch query"], key_rank: Int[Tensor, "batch key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return the bias between ranks; equal ranks see each other, and a key of rank -1 is padding.

        A query that may see nothing sees everything instead: it is padding itself, and nan would spread.
        """
        distance = query_rank[:, :, None] - key_rank[:, None, :]
        visible: Bool[Tensor, "batch query key"] = (key_rank >= 0)[:, None, :].expand_as(distance)
        if self.causal:
            visible = visible & (distance >= 0)
            place = distance.clamp(0, self.max_distance)
        else:
            place = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        bias = self.table[:, place].transpose(0, 1)
        hidden = ~visible & visible.any(dim=-1, keepdim=True)
        return bias.masked_fill(hidden[:, None], -torch.inf)
