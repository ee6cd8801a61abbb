"""What one would decode with instead: Hugging Face's `generate` with `prefix_allowed_tokens_fn`, on Qwen3 and on T5.

Both search with random weights; `causal_decoder` and `generator` are ours with the same ones.

Axes: `batch` requests, `token` codes of a history, `beam` answers of a request, `item` catalogue, `level` codes of one.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration

from sidrec.nn.causal import CausalDecoder, CausalShape
from sidrec.systems.s2gr.config import S2GRModelConfig, Thinking
from sidrec.systems.s2gr.model import S2GRModel

PAD_TOKEN = 0


@dataclass(frozen=True)
class Widths:
    """What the models on both sides have in common."""

    dim: int = 128
    heads: int = 4
    ff_dim: int = 512
    layers: int = 4


@dataclass(frozen=True)
class Found:
    """Items of every request, best first, and their log-probabilities."""

    items: Int[Tensor, "batch beam"]
    log_probs: Float[Tensor, "batch beam"]


class Vocabulary:
    """Every level's codes as tokens of their own, after padding; and what may follow a prefix of an item."""

    def __init__(self, item_codes: NDArray[np.int32], codes: int) -> None:
        self.levels = item_codes.shape[1]
        self.codes = codes
        self.size = self.levels * codes + 1
        self.tokens: Int[Tensor, "item level"] = (
            torch.from_numpy(item_codes.astype(np.int64)) + 1 + codes * torch.arange(self.levels)
        )
        self.item_of = {tuple(row): item for item, row in enumerate(self.tokens.tolist())}
        following: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for row in self.item_of:
            for level in range(self.levels):
                following[row[:level]].add(row[level])
        self.allowed = {prefix: sorted(tokens) for prefix, tokens in following.items()}

    def level_tokens(self, level: int) -> Int[Tensor, " code"]:
        """Return the tokens of a level's codes."""
        return torch.arange(self.codes) + 1 + self.codes * level


class Peer:
    """A Hugging Face model that searches under the catalogue's prefixes."""

    def __init__(self, model: Any, vocabulary: Vocabulary, *, decoder_only: bool) -> None:
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.decoder_only = decoder_only

    @torch.no_grad()
    def generate(self, tokens: Int[Tensor, "batch token"], beams: int, mask: Tensor | None = None) -> Any:
        """Return what `generate` returns; padding of a decoder-only model's prompt is on the left."""
        start = tokens.shape[1] if self.decoder_only else 1
        allowed = self.vocabulary.allowed
        return self.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens) if mask is None else mask,
            max_new_tokens=self.vocabulary.levels,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            length_penalty=0.0,
            # Without it a score is over all tokens, those that no item has here among them.
            renormalize_logits=True,
            prefix_allowed_tokens_fn=lambda _, ids: allowed[tuple(ids[start:].tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )

    def search(self, tokens: Int[Tensor, "batch token"], beams: int, mask: Tensor | None = None) -> Found:
        """Return the items of the best beams."""
        out = self.generate(tokens, beams, mask)
        new = out.sequences[:, -self.vocabulary.levels :].tolist()
        items = torch.tensor([self.vocabulary.item_of[tuple(row)] for row in new])
        return Found(items.view(len(tokens), -1), out.sequences_scores.view(len(tokens), -1))

    def cache_bytes(self, tokens: Int[Tensor, "batch token"], beams: int) -> int:
        """Return the bytes of keys and values that `generate` holds after its last step."""
        cache = self.generate(tokens, beams).past_key_values
        parts = [cache] if self.decoder_only else [cache.self_attention_cache, cache.cross_attention_cache]
        layers = [layer for part in parts for layer in part.layers]
        return sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in (layer.keys, layer.values))


def qwen3(widths: Widths, vocabulary: Vocabulary) -> Peer:
    """Return a decoder-only Qwen3 of these widths with random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary.size,
        hidden_size=widths.dim,
        intermediate_size=widths.ff_dim,
        num_hidden_layers=widths.layers,
        num_attention_heads=widths.heads,
        num_key_value_heads=widths.heads,
        head_dim=widths.dim // widths.heads,
        tie_word_embeddings=True,
        # At the usual 0.02 every item is as probable as any other.
        initializer_range=0.1,
        pad_token_id=PAD_TOKEN,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Peer(Qwen3ForCausalLM(config), vocabulary, decoder_only=True)


def causal_decoder(peer: Peer) -> CausalDecoder:
    """Return ours with the weights of a Qwen3."""
    return CausalDecoder(CausalShape.of(peer.model.config.to_dict()), peer.model.state_dict())


def t5(widths: Widths, vocabulary: Vocabulary) -> Peer:
    """Return a T5 of these widths with random weights, its relative biases zero."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocabulary.size,
        d_model=widths.dim,
        d_kv=widths.dim // widths.heads,
        d_ff=widths.ff_dim,
        num_layers=widths.layers,
        num_decoder_layers=widths.layers,
        num_heads=widths.heads,
        dropout_rate=0.0,
        pad_token_id=PAD_TOKEN,
        eos_token_id=None,
    )
    config.decoder_start_token_id = PAD_TOKEN
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.zero_()
    return Peer(model, vocabulary, decoder_only=False)


def generator(peer: Peer, widths: Widths, *, num_nodes: int, max_items: int, thinking: Thinking = "none") -> S2GRModel:
    """Return S²GR with the weights of a T5; without thinking it is the same function."""
    vocabulary = peer.vocabulary
    config = S2GRModelConfig.model_validate(
        {
            "flatten": True,
            "encoder": "full",
            "max_positions": max_items,
            "dim": widths.dim,
            "num_heads": widths.heads,
            "ff_dim": widths.ff_dim,
            "encoder_layers": widths.layers,
            "decoder_layers": widths.layers,
            "auxiliary_layers": 1,
            "dropout": 0.0,
            "tie_codes": True,
            "thinking": thinking,
        }
    )
    torch.manual_seed(0)
    model = S2GRModel(config, codebook_sizes=[vocabulary.codes] * vocabulary.levels, code_dim=1, num_nodes=num_nodes)
    state = peer.model.state_dict()
    renamed = {"bos": state["shared.weight"][PAD_TOKEN]}
    for level in range(vocabulary.levels):
        renamed[f"code_in.{level}"] = state["shared.weight"][vocabulary.level_tokens(level)]
    for side in ("encoder", "decoder"):
        renamed[f"{side}_norm.weight"] = state[f"{side}.final_layer_norm.weight"]
        parts = {"layer.0": ("attention_norm", "attention", "SelfAttention"), "layer.1": ("ff_norm", "ff", "")}
        if side == "decoder":
            parts = {
                "layer.0": ("self_norm", "self_attention", "SelfAttention"),
                "layer.1": ("cross_norm", "cross_attention", "EncDecAttention"),
                "layer.2": ("ff_norm", "ff", ""),
            }
        for layer in range(widths.layers):
            for place, (norm, part, attention) in parts.items():
                ours, theirs = f"{side}.{layer}", f"{side}.block.{layer}.{place}"
                renamed[f"{ours}.{norm}.weight"] = state[f"{theirs}.layer_norm.weight"]
                if not attention:
                    renamed[f"{ours}.ff.layers.0.weight"] = state[f"{theirs}.DenseReluDense.wi.weight"]
                    renamed[f"{ours}.ff.layers.3.weight"] = state[f"{theirs}.DenseReluDense.wo.weight"]
                    continue
                for letter, name in zip("qkvo", ("query", "key", "value", "out"), strict=True):
                    renamed[f"{ours}.{part}.{name}.weight"] = state[f"{theirs}.{attention}.{letter}.weight"]
                # T5 does not scale its scores; ours are scaled by 1 / sqrt(d_k).
                renamed[f"{ours}.{part}.query.weight"] = (
                    renamed[f"{ours}.{part}.query.weight"] * (widths.dim // widths.heads) ** 0.5
                )
    _, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected, unexpected
    return model
