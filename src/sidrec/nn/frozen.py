"""The encoder and decoder as answers run them: no gradients, norms and scales folded into the products after them.

One request of a small model spends more on starting operations than on arithmetic, so operations are few: one product
for queries, keys and values, a norm of three operations, residuals added by the products themselves.

Axes: `batch` users, `pos` encoder positions, `row` decoder rows of all users (one user's are neighbours), `layer`
decoder layers, `step` decoder positions, `dim` width, `head` times `head_dim` is `inner`, `batch_head` their product.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sidrec.nn.attention import Attention, DistanceBias
from sidrec.nn.blocks import DecoderBlock, EncoderBlock, FeedForward
from sidrec.nn.norm import EPSILON, RMSNorm
from sidrec.nn.past import Past

# Up to so many positions their scores fit a core's cache, and batched products are faster than a fused attention.
LONG = 128


def unit(inputs: Float[Tensor, "*rows dim"], floor: Float[Tensor, ""]) -> Float[Tensor, "*rows dim"]:
    """Return vectors over the root of their squared length and the floor's: RMS norm but for a constant factor."""
    length: Tensor = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    return inputs / length.hypot(floor)


def unit_floor(dim: int, like: Tensor, epsilon: float = EPSILON) -> Float[Tensor, ""]:
    """Return the floor that makes `unit` an RMS norm of `epsilon` over sqrt(dim)."""
    return torch.tensor((dim * epsilon) ** 0.5, dtype=like.dtype, device=like.device)


def after_unit(gain: Float[Tensor, " dim"], *weights: Float[Tensor, "_ dim"]) -> Float[Tensor, "dim out"]:
    """Return linear maps side by side, ready to multiply `unit` vectors from the right; `gain` is the norm's weight."""
    scale: float = len(gain) ** 0.5
    return (torch.cat(weights) * gain * scale).T.contiguous()


class FrozenBias:
    """A distance bias as a table of every pair of ranks; padding, rank -1, is the last of them."""

    @torch.no_grad()
    def __init__(self, bias: DistanceBias, num_ranks: int) -> None:
        ranks = torch.arange(num_ranks + 1, device=bias.table.device)
        ranks[-1] = -1
        self.table: Float[Tensor, "head rank rank"] = bias(ranks[None], ranks[None])[0].contiguous()

    def __call__(
        self, query_rank: Int[Tensor, "batch query"], key_rank: Int[Tensor, "batch key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return the bias between ranks below `num_ranks`, as the module that it was made from does."""
        heads, ranks, _ = self.table.shape
        batch, queries = query_rank.shape
        rows = self.table.index_select(1, (query_rank % ranks).flatten()).view(heads, batch, queries, ranks)
        columns = (key_rank % ranks)[:, None, None].expand(-1, heads, queries, -1)
        return rows.transpose(0, 1).gather(3, columns)


@dataclass(frozen=True, slots=True)
class _EncoderWeights:
    project: Float[Tensor, "dim three_inner"]
    out: Float[Tensor, "inner dim"]
    ff_in: Float[Tensor, "dim ff_dim"]
    ff_out: Float[Tensor, "ff_dim dim"]


@dataclass(frozen=True, slots=True)
class _DecoderWeights:
    project: Float[Tensor, "dim three_inner"]
    out: Float[Tensor, "inner dim"]
    cross_query: Float[Tensor, "dim inner"]
    cross_out: Float[Tensor, "inner dim"]
    ff_in: Float[Tensor, "dim ff_dim"]
    ff_out: Float[Tensor, "ff_dim dim"]


class FrozenEncoder:
    """A stack of encoder blocks and the norm after it, with the weights that they have now."""

    @torch.no_grad()
    def __init__(self, blocks: Iterable[nn.Module], norm: RMSNorm) -> None:
        self.layers: list[_EncoderWeights] = []
        for block in cast(Iterable[EncoderBlock], blocks):
            attention = block.attention
            self.num_heads = attention.num_heads
            self.layers.append(
                _EncoderWeights(
                    after_unit(block.attention_norm.weight, *_projections(attention)),
                    attention.out.weight.T.contiguous(),
                    *_feed_forward(block.ff_norm, block.ff),
                )
            )
        self.floor = unit_floor(len(norm.weight), norm.weight)

    def __call__(
        self, inputs: Float[Tensor, "batch pos dim"], bias: Float[Tensor, "batch head pos pos"]
    ) -> Float[Tensor, "batch pos dim"]:
        """Return the encoder's output as `unit` vectors; the gain of its norm is the decoder's to apply."""
        batch, positions, _ = inputs.shape
        hidden, heads = inputs.flatten(0, 1).clone(), self.num_heads
        bias = bias.flatten(0, 1)
        for layer in self.layers:
            projected = (unit(hidden, self.floor) @ layer.project).view(batch, positions, 3, heads, -1)
            queries, keys, values = projected.permute(2, 0, 3, 1, 4).flatten(1, 2)
            if positions > LONG:
                read = scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)
            else:
                read = torch.bmm(torch.baddbmm(bias, queries, keys.transpose(1, 2)).softmax(dim=-1), values)
            read = read.view(batch, heads, positions, -1).transpose(1, 2)
            hidden.addmm_(read.reshape(batch * positions, -1), layer.out)
            hidden.addmm_((unit(hidden, self.floor) @ layer.ff_in).relu_(), layer.ff_out)
        return unit(hidden, self.floor).view(batch, positions, -1)


@dataclass(frozen=True, slots=True)
class FrozenMemory:
    """What the decoder reads of the encoder's output, once a user however many rows the user has."""

    keys: Float[Tensor, "layer batch_head head_dim pos"]
    values: Float[Tensor, "layer batch_head pos head_dim"]
    bias: Float[Tensor, "batch_head 1 pos"]


class FrozenDecoder:
    """A stack of decoder blocks with the weights that they have now."""

    @torch.no_grad()
    def __init__(self, blocks: Iterable[nn.Module], encoder_norm: RMSNorm) -> None:
        self.layers: list[_DecoderWeights] = []
        memory: list[Tensor] = []
        for block in cast(Iterable[DecoderBlock], blocks):
            own, cross = block.self_attention, block.cross_attention
            self.num_heads, self.inner = own.num_heads, own.query.out_features
            cross_query, *read = _projections(cross)
            memory += read
            self.layers.append(
                _DecoderWeights(
                    after_unit(block.self_norm.weight, *_projections(own)),
                    own.out.weight.T.contiguous(),
                    after_unit(block.cross_norm.weight, cross_query),
                    cross.out.weight.T.contiguous(),
                    *_feed_forward(block.ff_norm, block.ff),
                )
            )
        self.memory = after_unit(encoder_norm.weight, *memory)
        self.floor = unit_floor(len(encoder_norm.weight), encoder_norm.weight)

    def remember(
        self, encoded: Float[Tensor, "batch pos dim"], bias: Float[Tensor, "batch head 1 pos"]
    ) -> FrozenMemory:
        """Return keys and values for every layer by one product; `encoded` are `unit` vectors."""
        batch, positions, _ = encoded.shape
        read = (encoded.flatten(0, 1) @ self.memory).view(batch, positions, len(self.layers), 2, self.num_heads, -1)
        keys, values = read.permute(3, 2, 0, 4, 1, 5).flatten(2, 3)
        return FrozenMemory(keys.transpose(2, 3), values, bias.flatten(0, 1))


class DecoderRows:
    """Decoder rows in the middle of their work."""

    def __init__(self, decoder: FrozenDecoder, memory: FrozenMemory, past: Past) -> None:
        self.decoder = decoder
        self.memory = memory
        self.past = past

    @classmethod
    def begin(cls, decoder: FrozenDecoder, memory: FrozenMemory, num_steps: int) -> "DecoderRows":
        """Return one row a user with nothing behind it and room for `num_steps` positions."""
        users = memory.bias.shape[0] // decoder.num_heads
        past = Past.empty(memory.keys, layers=len(decoder.layers), steps=num_steps, rows=users, inner=decoder.inner)
        return cls(decoder, memory, past)

    def follow(self, origin: Int[Tensor, "batch beam"]) -> "DecoderRows":
        """Return rows that go on from the rows `origin` of each user; these here stay as they are."""
        return DecoderRows(self.decoder, self.memory, self.past.follow(origin))

    def feed(self, inputs: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
        """Return each row's state, a `unit` vector, after one more position; `inputs` is overwritten."""
        hidden, floor, heads, inner = inputs, self.decoder.floor, self.decoder.num_heads, self.decoder.inner
        rows, last = hidden.shape[0], self.past.length
        users = self.memory.bias.shape[0] // heads
        for layer, past, keys, values in zip(
            self.decoder.layers, self.past.block, self.memory.keys, self.memory.values, strict=True
        ):
            projected = unit(hidden, floor) @ layer.project
            past[0, last] = projected[:, inner : 2 * inner]
            past[1, last] = projected[:, 2 * inner :]
            if last == 0:
                read = past[1, 0]
            else:
                own = past[:, : last + 1].view(2, last + 1, rows, heads, -1)
                # Thousands of products of a few numbers, which a batched product is bad at.
                weights = (projected[:, :inner].view(rows, heads, -1) * own[0]).sum(dim=-1).softmax(dim=0)
                read = (weights[..., None] * own[1]).sum(dim=0).view(rows, inner)
            hidden.addmm_(read, layer.out)
            queries = (unit(hidden, floor) @ layer.cross_query).view(users, rows // users, heads, -1)
            scores = torch.baddbmm(self.memory.bias, queries.transpose(1, 2).flatten(0, 1), keys)
            crossed = torch.bmm(scores.softmax(dim=-1), values).view(users, heads, rows // users, -1)
            hidden.addmm_(crossed.transpose(1, 2).reshape(rows, inner), layer.cross_out)
            hidden.addmm_((unit(hidden, floor) @ layer.ff_in).relu_(), layer.ff_out)
        self.past.length = last + 1
        return unit(hidden, floor)


def _projections(attention: Attention) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of queries, with the scale of their scores, of keys and of values."""
    scale = (attention.query.out_features // attention.num_heads) ** -0.5
    return attention.query.weight * scale, attention.key.weight, attention.value.weight


def _feed_forward(norm: RMSNorm, ff: FeedForward) -> tuple[Tensor, Tensor]:
    first, *_, second = (layer.weight for layer in ff.layers if isinstance(layer, nn.Linear))
    return after_unit(norm.weight, first), second.T.contiguous()
