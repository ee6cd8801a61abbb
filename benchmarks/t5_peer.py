"""What one would train instead: a Hugging Face T5 on flattened histories, a trainer's step on random padded batches.

Axes: `row` one history and its target item, `token` codes of a history, padded, `label` codes of a target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import T5Config, T5ForConditionalGeneration

PAD_TOKEN = 0


@dataclass(frozen=True)
class Shape:
    """The widths that both models have."""

    name: str
    dim: int
    heads: int
    head_dim: int
    ff_dim: int
    layers: int
    dropout: float = 0.1


@dataclass(frozen=True)
class Work:
    """What was learnt from: the real tokens that an encoder read, the codes that carried loss, the mean loss."""

    read: int
    learnt: int
    loss: float

    @property
    def value(self) -> int:
        """Tokens of value."""
        return self.read + self.learnt


class T5Peer:
    """T5 with a vocabulary of every level's codes; PAD starts the decoder, as T5 has it, and nothing ends an item."""

    def __init__(self, shape: Shape, *, levels: int, codes: int, learning_rate: float) -> None:
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=levels * codes + 1,
            d_model=shape.dim,
            d_kv=shape.head_dim,
            d_ff=shape.ff_dim,
            num_layers=shape.layers,
            num_decoder_layers=shape.layers,
            num_heads=shape.heads,
            dropout_rate=shape.dropout,
            pad_token_id=PAD_TOKEN,
            eos_token_id=None,
            use_cache=False,
        )
        config.decoder_start_token_id = PAD_TOKEN
        self.model: nn.Module = T5ForConditionalGeneration(config).train()
        # The optimiser and the clip are a Trainer's defaults.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)

    def epoch(self, rows: "Rows", batch_rows: int) -> Work:
        """Return what one pass over all rows learnt from."""
        read = learnt = 0
        losses = []
        for tokens, labels in rows.batches(batch_rows):
            real = tokens != PAD_TOKEN
            loss = self.model(input_ids=tokens, attention_mask=real.long(), labels=labels).loss
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            read += int(real.sum())
            learnt += labels.numel()
            losses.append(float(loss.detach()))
        return Work(read, learnt, sum(losses) / len(losses))


@dataclass(frozen=True)
class Rows:
    """Histories as tokens, each with its target's tokens."""

    tokens: list[Int[Tensor, " token"]]
    labels: Int[Tensor, "row label"]

    @classmethod
    def of(cls, histories: Sequence[NDArray[np.int64]], item_codes: NDArray[np.int32], codes: int, cap: int) -> "Rows":
        """Return a row for each history: its last item is the target, up to `cap` items before that are read."""
        vocabulary = torch.from_numpy(item_codes.astype(np.int64)) + 1 + codes * torch.arange(item_codes.shape[1])
        tokens = [vocabulary[torch.from_numpy(items[-cap - 1 : -1])].flatten() for items in histories]
        return cls(tokens, vocabulary[torch.tensor([int(items[-1]) for items in histories])])

    def batches(self, size: int) -> Iterator[tuple[Int[Tensor, "row token"], Int[Tensor, "row label"]]]:
        """Yield all rows in random order, padded to the longest of their batch."""
        order = torch.randperm(len(self.tokens), generator=torch.Generator().manual_seed(0))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            tokens = [self.tokens[row] for row in rows.tolist()]
            yield pad_sequence(tokens, batch_first=True, padding_value=PAD_TOKEN), self.labels[rows]
