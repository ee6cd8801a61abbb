"""The generator as answers run it: weights folded once, the encoder run once, no gradients.

Thoughts widen nothing: a row thinks in its own place, and what comes before the first code is one row a user. The
search begins from a state that is computed once, however often it begins.

Axes: `batch` users, `beam` hypotheses of a user, `row` hypotheses of all users, `code` one codebook.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.nn.frozen import DecoderRows, FrozenBias, FrozenDecoder, FrozenEncoder, FrozenMemory, after_unit
from sidrec.systems.batches import EncoderInput
from sidrec.systems.s2gr.model import S2GRModel


class FrozenGenerator:
    """A model's weights in the layout that answers need; a model that changes afterwards needs a new one."""

    @torch.no_grad()
    def __init__(self, model: S2GRModel) -> None:
        self.model = model
        self.thinking = model.config.thinking
        self.num_levels = len(model.codebook_sizes)
        self.encoder = FrozenEncoder(model.encoder, model.encoder_norm)
        self.decoder = FrozenDecoder(model.decoder, model.encoder_norm)
        self.self_bias = FrozenBias(model.self_bias, model.config.max_positions)
        self.cross_bias = FrozenBias(model.cross_bias, model.config.max_positions)
        gain = model.decoder_norm.weight
        self.code_out = [after_unit(gain, model.code_weights(level)) for level in range(self.num_levels)]
        # A state is read back as a thinking token with the norm's gain, which the code tables have folded in.
        self.gain = gain * len(gain) ** 0.5

    @torch.inference_mode()
    def encode(
        self,
        inputs: EncoderInput,
        codes: Int[Tensor, "item level"],
        present: Float[Tensor, "item level"],
        item_vectors: Float[Tensor, "item dim"] | None = None,
    ) -> FrozenMemory:
        """Return what the decoder reads of a batch of histories: everything of them, from after the newest basket."""
        model, rank = self.model, inputs.rank
        hidden = model.embed(inputs, codes, present, item_vectors)
        encoded = self.encoder(hidden, self.self_bias(rank, rank))
        return self.decoder.remember(encoded, self.cross_bias(rank.amax(dim=1, keepdim=True), rank))


class FrozenSteps:
    """Implements `sidrec.decoding.beam.Steps` over one batch of encoded histories."""

    @torch.inference_mode()
    def __init__(self, generator: FrozenGenerator, memory: FrozenMemory) -> None:
        self.generator = generator
        self.first_thought: Float[Tensor, "user dim"] | None = None
        """The thinking token in front of the first code, shared by all hypotheses; None where none is read back."""
        self._level = 0
        thoughts = 0 if generator.thinking == "none" else generator.num_levels
        self._start = DecoderRows.begin(generator.decoder, memory, generator.num_levels + thoughts)
        self._rows = self._start
        self._users = users = memory.bias.shape[0] // generator.decoder.num_heads
        self._first = self._next_logits(generator.model.bos.expand(users, -1).clone())

    def begin(self) -> Float[Tensor, "batch 1 code"]:
        """Return the logits of the first code; its thinking token is shared by all hypotheses to come."""
        self._rows, self._level = self._start, 0
        return self._first

    @torch.inference_mode()
    def extend(
        self, origin: Int[Tensor, "batch beam"], codes: Int[Tensor, "batch beam"]
    ) -> Float[Tensor, "batch beam next_code"]:
        """Return the next code's logits after the hypotheses `origin` were extended by `codes`."""
        self._rows = self._rows.follow(origin)
        vectors = self.generator.model.code_in[self._level].index_select(0, codes.flatten())
        self._level += 1
        return self._next_logits(vectors)

    def held(self) -> tuple[Tensor, ...]:
        """Return the keys and values in memory now."""
        memory = self._rows.memory
        return memory.keys, memory.values, self._start.past.block, self._rows.past.block

    def _next_logits(self, inputs: Float[Tensor, "row dim"]) -> Float[Tensor, "batch beam code"]:
        generator, level = self.generator, self._level
        positions = generator.model.level_position
        state = self._rows.feed(inputs)
        match generator.thinking:
            case "stepwise":
                state = self._rows.feed(self._thought(torch.addcmul(positions[level], state, generator.gain)))
            case "ahead" if level == 0:
                for ahead in positions:
                    state = self._rows.feed(self._thought(torch.addcmul(ahead, state, generator.gain)))
            case "pause":
                state = self._rows.feed(positions[level].expand(state.shape).clone())
            case _:
                pass
        return (state @ generator.code_out[level]).view(self._users, -1, generator.code_out[level].shape[1])

    def _thought(self, token: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
        if self.first_thought is None:
            self.first_thought = token.clone()  # the token is overwritten as it is fed
        return token
