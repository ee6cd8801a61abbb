"""What an answer earns: more for every code of the wanted item that it begins with, and a little for being an item.

R = hit + lambda valid, hit = 1 / 2^(L - m) with m leading codes of L right, and 0 where none is (SIDReasoner,
arXiv 2603.23183; its formula would pay for m = 0 too, its code does not). No answer earns nothing.

Axes: `row` answers, `target` items that would have been right (padded), `level` codes of a semantic ID.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import PAD

# What stands in an answer where its word is no code of that level.
WRONG = -2


@dataclass(frozen=True, slots=True)
class Rewards:
    """What each sample earned, and what that was made of."""

    total: Float[Tensor, " row"]
    hits: Float[Tensor, " row"]
    valid: Float[Tensor, " row"]  # 1 for an answer that is an item


def rewards_of(
    answers: Int[Tensor, "row level"],
    targets: Sequence[Sequence[int]],
    codes: NDArray[np.int32],
    *,
    valid_reward: float,
) -> Rewards:
    """Return the rewards of answers, on their device.

    Args:
        targets: items that would have been right, of each row.
        codes: [catalogue item, level].
    """
    wanted = torch.zeros(len(targets), max(map(len, targets)), codes.shape[1], dtype=torch.int64)
    real = torch.zeros(wanted.shape[:2], dtype=torch.bool)
    for row, items in enumerate(targets):
        wanted[row, : len(items)] = torch.from_numpy(codes[list(items)])
        real[row, : len(items)] = True
    items_by_codes = {tuple(own) for own in codes.tolist()}
    said = answers.cpu()
    hits = answer_hits(said, wanted, real)
    valid = torch.tensor([tuple(own) in items_by_codes for own in said.tolist()]).float()
    where = answers.device
    return Rewards((hits + valid_reward * valid).to(where), hits.to(where), valid.to(where))


def answer_hits(
    answers: Int[Tensor, "row level"], wanted: Int[Tensor, "row target level"], real: Bool[Tensor, "row target"]
) -> Float[Tensor, " row"]:
    """Return the hit of each answer, by the item of its targets that it is nearest to.

    Args:
        answers: `PAD` ends one early, as it does in the catalogue; a whole row of it is no answer.
        real: which targets are no padding.
    """
    same = answers[:, None] == wanted
    length = (wanted != PAD).sum(dim=-1)
    right = torch.minimum(same.int().cumprod(dim=-1).sum(dim=-1), length)
    # A name that goes on where the wanted one ends is another item's.
    right = torch.where(same.all(dim=-1), length, torch.minimum(right, length - 1))
    hits = torch.where(right > 0, 0.5 ** (length - right).float(), 0.0)
    answered = (answers[:, :1] != PAD).float()
    return (hits * real * answered).amax(dim=1)
