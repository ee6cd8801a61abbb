"""REG4Rec's generator: a path takes one slot after the other, in an order of its own, and names a category each time.

h_t = Decoder(BOS, E_r1[c_r1] + b_r1, …), logit_r(j) = cos(T_r(h_t), E_r[j]) / tau for every slot r (REG4Rec, arXiv
2508.15308; towers, cosine and b_r are our choice). Tokens of a set have no order, so a token has an embedding of its
slot and none of its position.

Axes: `user` rows of a batch, `pos` encoder positions, `row` decoder rows of a user, `dim` width, `slot` codebooks,
`code` entries of one, `category` of items.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from sidrec.nn.attention import DistanceBias, KeyValues
from sidrec.nn.blocks import DecoderBlock, EncoderBlock
from sidrec.nn.dropout import Dropout
from sidrec.nn.norm import RMSNorm
from sidrec.systems.batches import EncoderInput
from sidrec.systems.reg4rec.config import Reg4RecModelConfig


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder leaves for the decoder: positions' ranks, and keys and values for every decoder layer, once."""

    rank: Int[Tensor, "user pos"]
    layers: list[KeyValues]


class Reg4RecModel(nn.Module):
    """Encoder, decoder, a tower a slot and a head for categories."""

    def __init__(self, config: Reg4RecModelConfig, *, num_slots: int, codebook_size: int) -> None:
        super().__init__()
        self.config = config
        self.num_slots, self.codebook_size = num_slots, codebook_size
        dim, heads, dropout = config.dim, config.num_heads, config.dropout
        scale = dim**-0.5
        self.codes = nn.Parameter(torch.randn(num_slots, codebook_size, dim) * scale)
        self.slot = nn.Parameter(torch.randn(num_slots, dim) * scale)
        self.item = nn.Sequential(nn.Linear(num_slots * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.bos = nn.Parameter(torch.randn(dim) * scale)
        # Says that the rest of a basket is asked for, not the next one; only training asks so.
        self.same_day = nn.Parameter(torch.zeros(dim))
        self.self_bias = DistanceBias(heads, config.max_positions)
        self.cross_bias = DistanceBias(heads, config.max_positions)
        self.input_dropout = Dropout(dropout)
        shape = (dim, heads, config.ff_dim, dropout)
        self.encoder = nn.ModuleList([EncoderBlock(*shape) for _ in range(config.encoder_layers)])
        self.encoder_norm = RMSNorm(dim)
        self.decoder = nn.ModuleList([DecoderBlock(*shape) for _ in range(config.decoder_layers)])
        self.decoder_norm = RMSNorm(dim)
        self.towers = nn.Parameter(torch.eye(dim) + torch.randn(num_slots, dim, dim) * scale)
        self.category = nn.Linear(dim, config.num_categories)
        # How far each step trusts the codes' popularity.
        self.prior_weight = nn.Parameter(torch.ones(num_slots))

    def item_vectors(self, codes: Int[Tensor, "item slot"]) -> Float[Tensor, "item dim"]:
        """Return MLP(concat_r E_r[c_r]) of each item."""
        slots = torch.arange(self.num_slots, device=codes.device)
        return self.item(self.codes[slots, codes].flatten(1))  # type: ignore[no-any-return]

    def encode(
        self,
        inputs: EncoderInput,
        codes: Int[Tensor, "item slot"],
        item_vectors: Float[Tensor, "item dim"] | None = None,
    ) -> Memory:
        """Return the memory of a batch of histories; a position sees its own basket and earlier ones.

        Args:
            codes: of the whole catalogue.
            item_vectors: those of the whole catalogue, where they are known already.
        """
        users, width = inputs.rank.shape
        if inputs.level is not None:
            slot = inputs.level.flatten()
            hidden = self.codes[slot, codes[inputs.items, slot]] + self.slot[slot]
        elif item_vectors is None:
            # Of the batch's own items: a step must not cost O(catalogue).
            items, events = inputs.items.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            hidden = _basket_vectors(events, inputs.bag_start, self.item_vectors(codes[items]))
        else:
            hidden = _basket_vectors(inputs.items, inputs.bag_start, item_vectors)
        hidden = self.input_dropout(hidden.view(users, width, -1))
        bias = self.self_bias(inputs.rank, inputs.rank)
        for block in self.encoder:
            hidden = block(hidden, bias)
        hidden = self.encoder_norm(hidden)
        layers = [block.cross_attention.remember(hidden) for block in self.decoder]  # type: ignore[operator, union-attr]
        return Memory(inputs.rank, layers)

    def slot_log_probs(
        self, hidden: Float[Tensor, "user row dim"], prior: Float[Tensor, "#user #row slot code"], step: int
    ) -> Float[Tensor, "user row slot code"]:
        """Return log p_r(j) of every code of every slot, over the whole codebook.

        Args:
            prior: log share of the code's items among all purchases; zeros where there is none.
            step: tokens that are already chosen.
        """
        towers = torch.einsum("urd,sde->urse", hidden, self.towers)
        cosine = torch.einsum("urse,sce->ursc", normalize(towers, dim=-1), normalize(self.codes, dim=-1))
        return (cosine / self.config.temperature + self.prior_weight[step] * prior).log_softmax(dim=-1)

    def category_log_probs(self, hidden: Float[Tensor, "user row dim"]) -> Float[Tensor, "user row category"]:
        """Return log p_cat of every category."""
        return self.category(hidden).log_softmax(dim=-1)  # type: ignore[no-any-return]


class Paths:
    """Decoder rows in the middle of their paths; `limit` is the newest basket that a row may see."""

    def __init__(self, model: Reg4RecModel, memory: Memory, limit: Int[Tensor, "user row"]) -> None:
        self.model = model
        self.memory = memory
        self.bias = model.cross_bias(limit, memory.rank)
        self.caches: list[KeyValues | None] = [None] * len(model.decoder)
        self.shape = (limit.shape[0], limit.shape[1])

    def begin(self, same_day: Float[Tensor, "user row"] | None = None) -> Float[Tensor, "user row dim"]:
        """Return the state before any token."""
        inputs = self.model.bos.expand(*self.shape, -1)
        return self._feed(inputs if same_day is None else inputs + same_day[..., None] * self.model.same_day)

    def extend(self, slot: Int[Tensor, "user row"], code: Int[Tensor, "user row"]) -> Float[Tensor, "user row dim"]:
        """Return the state after one more token of each row."""
        return self._feed(self.model.codes[slot, code] + self.model.slot[slot])

    def fork(self, copies: int) -> None:
        """Make every row `copies` rows, neighbours of one another, with equal pasts."""
        users, rows = self.shape
        self.follow(torch.arange(rows, device=self.bias.device).repeat_interleave(copies).expand(users, -1))

    def follow(self, origin: Int[Tensor, "user next_row"]) -> None:
        """Go on with the rows `origin` of each user."""
        users, rows = self.shape
        flat = (origin + rows * torch.arange(users, device=origin.device)[:, None]).flatten()
        self.caches = [None if cache is None else cache.rows(flat) for cache in self.caches]
        if self.bias.shape[2] > 1:
            index = origin[:, None, :, None].expand(-1, self.bias.shape[1], -1, self.bias.shape[3])
            self.bias = self.bias.gather(2, index)
        self.shape = (users, origin.shape[1])

    def _feed(self, inputs: Float[Tensor, "user row dim"]) -> Float[Tensor, "user row dim"]:
        hidden = inputs
        for layer, block in enumerate(self.model.decoder):
            hidden, self.caches[layer] = block(hidden, self.caches[layer], self.memory.layers[layer], self.bias)
        return self.model.decoder_norm(hidden)  # type: ignore[no-any-return]


def _basket_vectors(
    events: Int[Tensor, " event"], bag_start: Int[Tensor, " bag"], vectors: Float[Tensor, "item dim"]
) -> Float[Tensor, "bag dim"]:
    """Return the sum of a basket's item vectors over the root of its size; an empty bag is zero."""
    sums = embedding_bag(events, vectors, bag_start, mode="sum")
    end = torch.cat([bag_start[1:], bag_start.new_tensor([len(events)])])
    return sums * (end - bag_start).clamp(min=1)[:, None] ** -0.5
