"""Samples as batches of so many tokens; samples of like length share one, so that little of it is padding.

Padding stands behind a sample, where no token of it ever looks. Samples do not share a row.

Axes: `row` samples of a batch, `pos` positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.quantization.sharding import Shards
from sidrec.systems.sidreasoner.encoding import Sample

# Lengths that are one to the order of samples: tasks of almost the same length mix.
BUCKET = 16


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A batch, or a rank's part of one, and which of its tokens are predicted with a loss."""

    tokens: Int[Tensor, "row pos"]
    learnt: Bool[Tensor, "row pos"]
    count: int  # tokens with a loss in the whole batch

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the same batch on another device."""
        return replace(self, tokens=self.tokens.to(device), learnt=self.learnt.to(device))

    def part(self, rank: int, ranks: int) -> "TokenBatch":
        """Return every `ranks`-th row from the `rank`-th on; where there is none, a row that has nothing to learn.

        A rank whose weights are split takes part in every pass.
        """
        if rank < len(self.tokens):
            return replace(self, tokens=self.tokens[rank::ranks], learnt=self.learnt[rank::ranks])
        return replace(self, tokens=self.tokens[:1], learnt=torch.zeros_like(self.learnt[:1]))


class TokenBatches:
    """A training set for `training.loop`: an epoch and a step decide a batch, and all epochs have as many steps.

    Args:
        tokens_per_batch: padding counted; a longer sample is a batch of its own.
        shards: ranks that each have a part of every batch.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        tokens_per_batch: int,
        padding: int,
        seed: int,
        shards: Shards | None = None,
    ) -> None:
        if not samples:
            raise UsageError("there is no sample to learn from", next_step="give the fit users with two baskets")
        self.samples, self.padding, self.seed = samples, padding, seed
        self.shards = shards or Shards()
        # Cut by rounded lengths alone, which do not depend on the order among equals.
        self._length = np.array([-(-len(sample) // BUCKET) * BUCKET for sample in samples])
        self._starts = _starts(np.sort(self._length), tokens_per_batch)

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._starts)

    def batches(self, epoch: int, first: int = 0) -> Iterator[TokenBatch]:
        """Yield an epoch's batches from step `first` on; what came before changes nothing in them."""
        rng = np.random.default_rng([self.seed, epoch])
        order = np.lexsort((rng.random(len(self.samples)), self._length))
        parts = np.split(order, self._starts[1:])
        for part in rng.permutation(len(parts))[first:].tolist():
            batch = collate([self.samples[row] for row in parts[part].tolist()], self.padding)
            yield batch if self.shards.count == 1 else batch.part(self.shards.rank, self.shards.count)


def collate(samples: Sequence[Sample], padding: int) -> TokenBatch:
    """Return these samples as one batch."""
    width = max(len(sample) for sample in samples)
    tokens = np.full((len(samples), width), padding, dtype=np.int64)
    learnt = np.zeros((len(samples), width), dtype=np.bool_)
    for row, sample in enumerate(samples):
        tokens[row, : len(sample)] = sample.tokens
        learnt[row, : len(sample)] = sample.learnt
    # Nothing stands before the first token to predict it from.
    learnt[:, 0] = False
    return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(learnt), count=int(learnt.sum()))


def _starts(lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", budget: int) -> list[int]:
    """Return where each batch starts among samples of rising length."""
    starts = [0]
    for row, length in enumerate(lengths.tolist()):
        # The newest is the longest, and all others are padded to it.
        if row > starts[-1] and (row + 1 - starts[-1]) * length > budget:
            starts.append(row)
    return starts
