"""A decoder-only transformer of Qwen3's shape for answers: a prompt is read once, and all its beams share it.

Rotary positions, grouped queries, norms of queries and keys, SwiGLU. Weights come from a Hugging Face state dict; as in
`sidrec.nn.frozen`, norms and scales are folded into the products after them.

Axes: `batch` prompts, `pos` prompt positions, `beam` rows of a prompt, `row` rows of all prompts (one prompt's are
neighbours), `code` one codebook, `layer`, `dim` width, `head` query heads and `key_head` those of keys and values,
`heads` both, `turned` the heads of queries and keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from sidrec.nn.frozen import after_unit, unit, unit_floor
from sidrec.nn.past import Past


@dataclass(frozen=True, slots=True)
class CausalShape:
    """What the weights' shapes do not say."""

    num_layers: int
    num_heads: int
    num_key_heads: int
    head_dim: int
    rope_theta: float
    epsilon: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "CausalShape":
        """Return the shape in a Hugging Face configuration as a mapping.

        Raises:
            ValueError: it asks for something that is not computed here.
        """
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        expected: dict[str, tuple[Any, Any]] = {
            "model_type": (config.get("model_type"), "qwen3"),
            "hidden_act": (config.get("hidden_act", "silu"), "silu"),
            "attention_bias": (config.get("attention_bias", False), False),
            "use_sliding_window": (config.get("use_sliding_window", False), False),
            "rope_type": (rope.get("rope_type", "default"), "default"),
        }
        for name, (seen, wanted) in expected.items():
            if seen != wanted:
                raise ValueError(f"{name} of the configuration is {seen!r}, only {wanted!r} is computed here")
        return cls(
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["num_key_value_heads"],
            config["head_dim"],
            rope.get("rope_theta") or config["rope_theta"],
            config["rms_norm_eps"],
        )


@dataclass(frozen=True, slots=True)
class _Layer:
    project: Float[Tensor, "dim projected"]
    turn_gain: Float[Tensor, "turned head_dim"]
    out: Float[Tensor, "inner dim"]
    gate_up: Float[Tensor, "dim two_ff"]
    down: Float[Tensor, "ff dim"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is kept of a batch of prompts: keys and values once a prompt, and the state after its last token."""

    keys: Float[Tensor, "layer batch_key_head head_dim pos"]
    values: Float[Tensor, "layer batch_key_head pos head_dim"]
    bias: Float[Tensor, "batch_key_head 1 pos"]  # -inf at padding
    lengths: Int[Tensor, " batch"]
    state: Float[Tensor, "batch dim"]


class CausalDecoder:
    """The transformer with its weights; what it returns are `unit` vectors, whose gain the output weights hold."""

    @torch.no_grad()
    def __init__(self, shape: CausalShape, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a Hugging Face state dict.

        Raises:
            ValueError: one is missing.
        """
        self.shape = shape
        self.embedding = _weight(state, "model.embed_tokens.weight")
        self.layers = [_layer(shape, state, f"model.layers.{layer}.") for layer in range(shape.num_layers)]
        self.gain = _weight(state, "model.norm.weight")
        # A state dict of tied weights may name them once.
        self.head = state.get("lm_head.weight", self.embedding)
        self.floor = unit_floor(self.embedding.shape[1], self.embedding, shape.epsilon)
        self.head_floor = unit_floor(shape.head_dim, self.embedding, shape.epsilon)
        half = torch.arange(0, shape.head_dim, 2, device=self.embedding.device) / shape.head_dim
        self.frequencies = shape.rope_theta**-half

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "batch pos"], lengths: Int[Tensor, " batch"]) -> Prompt:
        """Return what beams need of prompts, which end with padding after `lengths` tokens each."""
        shape, (batch, width) = self.shape, tokens.shape
        hidden = self.embedding.index_select(0, tokens.flatten())
        positions = torch.arange(width, device=tokens.device)
        turn = self.rotation(positions)
        block = (shape.num_layers, batch, shape.num_key_heads)
        keys = hidden.new_empty(*block, shape.head_dim, width)
        values = hidden.new_empty(*block, width, shape.head_dim)
        for index, layer in enumerate(self.layers[:-1]):
            query, key, value = self._project(unit(hidden, self.floor), layer, turn, (batch, width))
            query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
            keys[index], values[index] = key.transpose(2, 3), value
            grouped = shape.num_heads != shape.num_key_heads
            read = scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0, enable_gqa=grouped)
            hidden.addmm_(read.transpose(1, 2).reshape(batch * width, -1), layer.out)
            self._feed_forward(hidden, layer)
        # Of the last layer only the last token's state goes on; the others leave their keys and values.
        layer, normed = self.layers[-1], unit(hidden, self.floor)
        _, key, value = self._project(normed, layer, turn, (batch, width), queries=False)
        keys[-1], values[-1] = key.permute(0, 2, 3, 1), value.transpose(1, 2)
        padding = torch.where(positions < lengths[:, None], 0.0, -torch.inf).to(hidden.dtype)
        bias = padding.repeat_interleave(shape.num_key_heads, dim=0)[:, None]
        newest = torch.arange(0, batch * width, width, device=tokens.device) + lengths - 1
        hidden = hidden.index_select(0, newest)
        turn = self.rotation((lengths - 1)[:, None])
        query, _, _ = self._project(normed.index_select(0, newest), layer, turn, (batch, 1), keys=False)
        flat_keys, flat_values = keys.flatten(1, 2), values.flatten(1, 2)
        hidden.addmm_(self._read(query, flat_keys[-1], flat_values[-1], bias, None), layer.out)
        self._feed_forward(hidden, layer)
        return Prompt(flat_keys, flat_values, bias, lengths, unit(hidden, self.floor))

    def feed(self, prompt: Prompt, past: Past, tokens: Int[Tensor, "batch beam"]) -> Float[Tensor, "row dim"]:
        """Return every beam's state after one more token, whose keys and values are added to `past`."""
        last = past.length
        hidden = self.embedding.index_select(0, tokens.flatten())
        turn = self.rotation((prompt.lengths + last)[:, None])
        for index, layer in enumerate(self.layers):
            query, key, value = self._project(unit(hidden, self.floor), layer, turn, tokens.shape)
            own = past.block[index, :, : last + 1]
            own[0, last].view_as(key)[:] = key
            own[1, last].view_as(value)[:] = value
            read = self._read(query, prompt.keys[index], prompt.values[index], prompt.bias, own)
            hidden.addmm_(read, layer.out)
            self._feed_forward(hidden, layer)
        past.length = last + 1
        return unit(hidden, self.floor)

    def rotation(self, positions: Int[Tensor, "*rows"]) -> tuple[Tensor, Tensor]:
        """Return cosines and signed sines [*rows, 1, head_dim] that turn heads at these positions."""
        angles = positions[..., None, None] * self.frequencies
        cosine, sine = angles.cos().to(self.embedding.dtype), angles.sin().to(self.embedding.dtype)
        return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)

    def _project(
        self,
        normed: Float[Tensor, "row dim"],
        layer: _Layer,
        turn: tuple[Tensor, Tensor],
        rows: tuple[int, ...],
        *,
        queries: bool = True,
        keys: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [*rows, heads, head_dim], or only those asked for."""
        shape = self.shape
        first = 0 if queries else shape.num_heads
        turned = shape.num_heads + shape.num_key_heads if keys else shape.num_heads
        end = turned + shape.num_key_heads if keys else turned
        weights = layer.project[:, first * shape.head_dim : end * shape.head_dim]
        projected = (normed @ weights).view(*rows, end - first, shape.head_dim)
        heads = unit(projected[..., : turned - first, :], self.head_floor) * layer.turn_gain[first:turned]
        cosine, sine = turn
        heads = torch.addcmul(heads * cosine, heads.roll(shape.head_dim // 2, dims=-1), sine)
        boundary = shape.num_heads - first
        return heads[..., :boundary, :], heads[..., boundary:, :], projected[..., turned - first :, :]

    def _read(
        self,
        query: Float[Tensor, "batch beam head head_dim"],
        keys: Float[Tensor, "batch_key_head head_dim pos"],
        values: Float[Tensor, "batch_key_head pos head_dim"],
        bias: Float[Tensor, "batch_key_head 1 pos"],
        own: Float[Tensor, "2 step row key_inner"] | None,
    ) -> Float[Tensor, "row inner"]:
        """Return what beams read of their prompt and of their own past under one softmax."""
        batch, beams = query.shape[:2]
        groups, width = self.shape.num_key_heads, keys.shape[2]
        grouped = query.reshape(batch, beams, groups, -1, self.shape.head_dim)
        scores = torch.baddbmm(bias, grouped.transpose(1, 2).reshape(batch * groups, -1, self.shape.head_dim), keys)
        if own is None:
            return self._merged(torch.bmm(scores.softmax(dim=-1), values), batch, beams).reshape(batch * beams, -1)
        past = own.view(2, own.shape[1], batch, beams, groups, 1, -1)
        # Thousands of products of a few numbers, which a batched product is bad at.
        own_scores = (grouped * past[0]).sum(dim=-1).permute(1, 3, 2, 4, 0).reshape(*scores.shape[:2], -1)
        weights = torch.cat([scores, own_scores], dim=-1).softmax(dim=-1)
        read = self._merged(torch.bmm(weights[..., :width], values), batch, beams)
        own_weights = weights[..., width:].view(batch, groups, beams, -1, own.shape[1]).permute(4, 0, 2, 1, 3)
        return (read + (own_weights[..., None] * past[1]).sum(dim=0)).reshape(batch * beams, -1)

    def _merged(self, read: Float[Tensor, "batch_key_head many head_dim"], batch: int, beams: int) -> Tensor:
        return read.view(batch, self.shape.num_key_heads, beams, -1, self.shape.head_dim).transpose(1, 2)

    def _feed_forward(self, hidden: Float[Tensor, "row dim"], layer: _Layer) -> None:
        gate, up = (unit(hidden, self.floor) @ layer.gate_up).chunk(2, dim=-1)
        hidden.addmm_(silu(gate).mul_(up), layer.down)


class CodeTokens:
    """The tokens of every level's codes, with the output weights of each level gathered once for all requests."""

    @torch.no_grad()
    def __init__(self, decoder: CausalDecoder, levels: Sequence[Int[Tensor, " _"]]) -> None:
        self.levels = levels
        self.weights = [after_unit(decoder.gain, decoder.head[tokens]) for tokens in levels]


class CausalSteps:
    """Implements `sidrec.decoding.beam.Steps`: one token a code after prompts that are read once."""

    def __init__(self, decoder: CausalDecoder, prompt: Prompt, tokens: CodeTokens) -> None:
        self.decoder = decoder
        self.prompt = prompt
        self.tokens = tokens
        self._past = self._nothing()

    def begin(self) -> Float[Tensor, "batch 1 code"]:
        """Return the logits of the first code, over that level's codes and not over the vocabulary."""
        self._past = self._nothing()
        return (self.prompt.state @ self.tokens.weights[0])[:, None]

    @torch.inference_mode()
    def extend(
        self, origin: Int[Tensor, "batch beam"], codes: Int[Tensor, "batch beam"]
    ) -> Float[Tensor, "batch beam next_code"]:
        """Return the next code's logits after the hypotheses `origin` were extended by `codes`."""
        self._past = self._past.follow(origin)
        level = self._past.length
        state = self.decoder.feed(self.prompt, self._past, self.tokens.levels[level][codes])
        return (state @ self.tokens.weights[level + 1]).view(*codes.shape, -1)

    def held(self) -> tuple[Tensor, ...]:
        """Return the keys and values in memory now."""
        return self.prompt.keys, self.prompt.values, self._past.block

    def _nothing(self) -> Past:
        shape = self.decoder.shape
        # The last code is never fed.
        steps, inner = len(self.tokens.levels) - 1, shape.num_key_heads * shape.head_dim
        rows = len(self.prompt.lengths)
        return Past.empty(self.prompt.keys, layers=shape.num_layers, steps=steps, rows=rows, inner=inner)


def _weight(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"the state dict has no {name}; it needs the names of Hugging Face's Qwen3ForCausalLM")
    return state[name]


def _layer(shape: CausalShape, state: Mapping[str, Tensor], prefix: str) -> _Layer:
    def of(name: str) -> Tensor:
        return _weight(state, f"{prefix}{name}.weight")

    # `unit` is short of an RMS norm by a root; queries carry the scale of their scores, which is that root again.
    query_gain = of("self_attn.q_norm").expand(shape.num_heads, -1)
    key_gain = (of("self_attn.k_norm") * shape.head_dim**0.5).expand(shape.num_key_heads, -1)
    projections = (of(f"self_attn.{name}_proj") for name in "qkv")
    return _Layer(
        after_unit(of("input_layernorm"), *projections),
        torch.cat([query_gain, key_gain]),
        of("self_attn.o_proj").T.contiguous(),
        after_unit(of("post_attention_layernorm"), of("mlp.gate_proj"), of("mlp.up_proj")),
        of("mlp.down_proj").T.contiguous(),
    )
