"""S²GR's generator: before every code the decoder emits a thinking token and reads it back.

t_l = Decoder(BOS, t_1, s_1, …, t_{l-1}, s_{l-1}) + p_l, then code s_l from the state at t_l (arXiv 2601.18664). The
other kinds of thinking are its controls: none at all (TIGER), all of it before the first code, constants in its place.

Axes: `user` rows of a batch, `pos` encoder positions, `row` decoder rows of a user, `dim` width, `level` codes of a
semantic ID, `code` one codebook, `node` trie nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from sidrec.nn.attention import DistanceBias, KeyValues
from sidrec.nn.blocks import DecoderBlock, EncoderBlock
from sidrec.nn.dropout import Dropout
from sidrec.nn.norm import RMSNorm
from sidrec.systems.batches import EncoderInput
from sidrec.systems.s2gr.config import S2GRModelConfig


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder leaves for the decoder: its output, and keys and values for every decoder layer, once."""

    hidden: Float[Tensor, "user pos dim"]
    rank: Int[Tensor, "user pos"]
    layers: list[KeyValues]


class Decoding:
    """Decoder rows in the middle of their semantic IDs; `limit` is the newest basket that a row may see."""

    def __init__(self, model: "S2GRModel", memory: Memory, limit: Int[Tensor, "user row"]) -> None:
        self.model = model
        self.memory = memory
        self.bias = model.cross_bias(limit, memory.rank)
        self.caches: list[KeyValues | None] = [None] * len(model.decoder)
        self.shape = (limit.shape[0], limit.shape[1])

    def feed(self, inputs: Float[Tensor, "user row dim"]) -> Float[Tensor, "user row dim"]:
        """Return the decoder's state after one more input position."""
        hidden = inputs
        for layer, block in enumerate(self.model.decoder):
            hidden, self.caches[layer] = block(hidden, self.caches[layer], self.memory.layers[layer], self.bias)
        return self.model.decoder_norm(hidden)  # type: ignore[no-any-return]

    def begin(self) -> Float[Tensor, "user row dim"]:
        """Return BOS for every row."""
        return self.model.bos.expand(*self.shape, -1)

    def next_logits(
        self, level: int, inputs: Float[Tensor, "user row dim"]
    ) -> tuple[Float[Tensor, "user row code"], dict[int, Float[Tensor, "user row dim"]]]:
        """Return the logits of the code at `level`, and the thinking tokens that were read back before them by level.

        A constant that stands in a token's place is not among them.
        """
        model = self.model
        hidden = self.feed(inputs)
        tokens = {}
        match model.config.thinking:
            case "stepwise":
                tokens[level] = hidden + model.level_position[level]
                hidden = self.feed(tokens[level])
            case "ahead" if level == 0:
                for ahead in range(len(model.codebook_sizes)):
                    tokens[ahead] = hidden + model.level_position[ahead]
                    hidden = self.feed(tokens[ahead])
            case "pause":
                hidden = self.feed(model.level_position[level].expand(hidden.shape))
            case _:
                pass
        return hidden @ model.code_weights(level).T, tokens

    def fork(self, copies: int) -> None:
        """Make every row `copies` rows, neighbours of one another, with equal pasts."""
        users, rows = self.shape
        origin = torch.arange(rows, device=self.bias.device).repeat_interleave(copies).expand(users, -1)
        self.follow(origin)

    def follow(self, origin: Int[Tensor, "user row"]) -> None:
        """Go on with the rows `origin` of each user."""
        users, rows = self.shape
        flat = (origin + rows * torch.arange(users, device=origin.device)[:, None]).flatten()
        self.caches = [None if cache is None else cache.rows(flat) for cache in self.caches]
        if self.bias.shape[2] > 1:
            index = origin[:, None, :, None].expand(-1, self.bias.shape[1], -1, self.bias.shape[3])
            self.bias = self.bias.gather(2, index)
        self.shape = (users, origin.shape[1])


class S2GRModel(nn.Module):
    """Encoder, decoder, and the auxiliary decoder whose whole-item vector only training uses."""

    def __init__(
        self,
        config: S2GRModelConfig,
        *,
        codebook_sizes: Sequence[int],
        code_dim: int,
        num_nodes: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.codebook_sizes = list(codebook_sizes)
        dim, heads, ff_dim, dropout = config.dim, config.num_heads, config.ff_dim, config.dropout
        levels = len(codebook_sizes)
        self.code_in = nn.ParameterList([torch.randn(size, dim) * dim**-0.5 for size in codebook_sizes])
        outputs = [] if config.tie_codes else codebook_sizes
        self.code_out = nn.ParameterList([torch.randn(size, dim) * 0.02 for size in outputs])
        # Says that the rest of a basket is asked for, not the next one; only training asks so.
        self.same_day = nn.Parameter(torch.zeros(dim))
        self.bos = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.level_position = nn.Parameter(torch.randn(levels, dim) * dim**-0.5)
        # What a prefix's popularity before the day does not say about it; how far each level trusts that popularity.
        self.prefix_bias = nn.Parameter(torch.zeros(num_nodes))
        self.prior_weight = nn.Parameter(torch.ones(levels))
        self.self_bias = DistanceBias(heads, config.max_positions, causal=config.encoder == "causal")
        self.cross_bias = DistanceBias(heads, config.max_positions)
        self.input_dropout = Dropout(dropout)
        shape = (dim, heads, ff_dim, dropout, config.head_dim)
        self.encoder = nn.ModuleList([EncoderBlock(*shape) for _ in range(config.encoder_layers)])
        self.encoder_norm = RMSNorm(dim)
        self.decoder = nn.ModuleList([DecoderBlock(*shape) for _ in range(config.decoder_layers)])
        self.decoder_norm = RMSNorm(dim)
        self.auxiliary = nn.ModuleList([DecoderBlock(*shape) for _ in range(config.auxiliary_layers)])
        self.auxiliary_norm = RMSNorm(dim)
        self.auxiliary_query = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.to_code_space = nn.Linear(dim, code_dim, bias=False)

    def code_weights(self, level: int) -> Float[Tensor, "code dim"]:
        """Return what the state before the code of `level` is multiplied by."""
        if self.config.tie_codes:
            tied: Tensor = self.code_in[level] * self.config.dim**-0.5
            return tied
        own: Tensor = self.code_out[level]
        return own

    def in_cluster_space(
        self,
        level: int,
        token: Float[Tensor, "row dim"],
        centres: Float[Tensor, "cluster code_dim"],
        members: Float[Tensor, "code cluster"],
    ) -> tuple[Float[Tensor, "row space"], Float[Tensor, "cluster space"]]:
        """Return thinking tokens and cluster centres in the space where they are compared.

        Args:
            members: 1 where a code belongs to a cluster.
        """
        if self.config.align_space == "projection":
            return self.to_code_space(token), centres
        sums = members.T @ self.code_in[level][: len(members)].detach()
        return token, sums / members.sum(dim=0)[:, None].clamp(min=1)

    def item_vectors(
        self, codes: Int[Tensor, "item level"], present: Float[Tensor, "item level"]
    ) -> Float[Tensor, "item dim"]:
        """Return the sum of each item's code embeddings; `present` is 0 for a missing last code."""
        return torch.stack(
            [table[codes[:, level]] * present[:, level, None] for level, table in enumerate(self.code_in)]
        ).sum(dim=0)

    def embed(
        self,
        inputs: EncoderInput,
        codes: Int[Tensor, "item level"],
        present: Float[Tensor, "item level"],
        item_vectors: Float[Tensor, "item dim"] | None = None,
    ) -> Float[Tensor, "user pos dim"]:
        """Return the encoder's input of a batch of histories.

        Args:
            item_vectors: those of the whole catalogue, where they are known already: a request must not cost O(items).
        """
        users, width = inputs.rank.shape
        if inputs.level is None:
            vectors = self.item_vectors(codes, present) if item_vectors is None else item_vectors
            return _basket_vectors(inputs, vectors).view(users, width, -1)
        level = inputs.level.flatten()
        code = codes[inputs.items, level]
        starts = torch.tensor([0, *self.codebook_sizes[:-1]], device=code.device).cumsum(0)
        hidden = torch.cat(list(self.code_in))[starts[level] + code] * present[inputs.items, level, None]
        return hidden.view(users, width, -1)

    def encode(
        self,
        inputs: EncoderInput,
        codes: Int[Tensor, "item level"],
        present: Float[Tensor, "item level"],
        item_vectors: Float[Tensor, "item dim"] | None = None,
    ) -> Memory:
        """Return the memory of a batch of histories; a position sees its own basket and earlier ones."""
        hidden = self.input_dropout(self.embed(inputs, codes, present, item_vectors))
        bias = self.self_bias(inputs.rank, inputs.rank)
        for block in self.encoder:
            hidden = block(hidden, bias)
        hidden = self.encoder_norm(hidden)
        return Memory(hidden, inputs.rank, [remember(block, hidden) for block in self.decoder])

    def whole_item(self, memory: Memory, limit: Int[Tensor, "user row"]) -> Float[Tensor, "user row dim"]:
        """Return the auxiliary decoder's guess v_g of the target item's vector."""
        bias = self.cross_bias(limit, memory.rank)
        hidden = self.auxiliary_query.expand(*limit.shape, -1)
        for block in self.auxiliary:
            hidden, _ = block(hidden, None, remember(block, memory.hidden), bias)
        return self.auxiliary_norm(hidden)  # type: ignore[no-any-return]


def _basket_vectors(inputs: EncoderInput, vectors: Float[Tensor, "item dim"]) -> Float[Tensor, "bag dim"]:
    """Return the sum of a basket's item vectors over the root of its size; an empty bag is zero."""
    sums = embedding_bag(inputs.items, vectors, inputs.bag_start, mode="sum")
    end = torch.cat([inputs.bag_start[1:], inputs.bag_start.new_tensor([len(inputs.items)])])
    return sums * (end - inputs.bag_start).clamp(min=1)[:, None] ** -0.5


def remember(block: nn.Module, hidden: Float[Tensor, "user pos dim"]) -> KeyValues:
    """Return the keys and values that a decoder block reads the encoder's output by."""
    assert isinstance(block, DecoderBlock)
    return block.cross_attention.remember(hidden)
