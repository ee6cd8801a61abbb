"""The slow exact decoder: every item's log-probability by definition, without a trie. The oracle of the beam search.

Axes: `batch` users, `item` catalogue rows.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sidrec.data.catalog import PAD
from sidrec.decoding.beam import Steps


def exhaustive_log_probs(
    steps: Steps, codes: NDArray[np.int32], bias: Mapping[tuple[int, ...], float]
) -> Float[Tensor, "batch item"]:
    """Return log p(item) of the whole catalogue, one item and one code after the other.

    Args:
        codes: [item, level], `PAD` where an item ends early.
        bias: prefix -> what is added to the logit of its last code.
    """
    sids = [tuple(code for code in row if code != PAD) for row in codes.tolist()]
    columns = []
    for sid in sids:
        logits = steps.begin()
        total = torch.zeros(logits.shape[0], device=logits.device, dtype=logits.dtype)
        for level, code in enumerate(sid):
            prefix = sid[:level]
            allowed = sorted({other[level] for other in sids if len(other) > level and other[:level] == prefix})
            offsets = torch.tensor([bias[(*prefix, option)] for option in allowed], dtype=logits.dtype)
            scores = logits[:, 0, allowed] + offsets.to(logits.device)
            total = total + scores.log_softmax(dim=-1)[:, allowed.index(code)]
            if level + 1 < len(sid):
                origin = torch.zeros(logits.shape[0], 1, dtype=torch.long, device=logits.device)
                logits = steps.extend(origin, torch.full_like(origin, code))
        columns.append(total)
    return torch.stack(columns, dim=1)
