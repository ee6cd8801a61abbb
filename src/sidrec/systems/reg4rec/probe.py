"""What a path says on the way to a known next item: codes, categories, and which slots it takes when.

Axes: `row` users with a known next item, `step` tokens of a path, `slot` codebooks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import one_hot

from sidrec.systems.base import Query
from sidrec.systems.reg4rec.model import Paths
from sidrec.systems.reg4rec.order import preference
from sidrec.systems.reg4rec.rank import Reg4RecRanker, user_salt

CHUNK = 256


@torch.no_grad()
def probe(ranker: Reg4RecRanker, queries: Sequence[Query], targets: Int[Tensor, " row"]) -> dict[str, Any]:
    """Return shares by step, the true tokens fed back in the model's own order.

    `code_accuracy`: the taken slot's best code is the true one. `confidence`: of the taken slot. `agreement`:
    neighbouring steps name one category. `slot_entropy`: of the taken slot over rows, in nats; 0 is one order for all.
    """
    model, slots = ranker.model, ranker.sets.num_slots
    columns: list[list[Tensor]] = [[], [], [], []]
    for first in range(0, len(queries), CHUNK):
        chunk, item = queries[first : first + CHUNK], targets[first : first + CHUNK]
        memory = ranker.encode(chunk)
        paths = Paths(model, memory, memory.rank.amax(dim=1, keepdim=True))
        free = torch.ones(len(chunk), 1, slots, dtype=torch.bool)
        salt = user_salt(chunk)[:, None]
        true = ranker.sets.codes[item]
        hidden = paths.begin()
        rows: list[list[Tensor]] = [[], [], [], []]
        today = torch.zeros(len(chunk), 1, dtype=torch.int64)
        prior, matches = ranker.prior.of_days(today), None
        for step in range(slots):
            log_probs = model.slot_log_probs(hidden, prior, step)
            slot = preference(model.config.order, log_probs, free, salt).argmax(dim=-1)
            own = log_probs.gather(2, slot[..., None, None].expand(-1, -1, 1, log_probs.shape[-1]))[:, 0, 0]
            code = true.gather(1, slot)
            rows[0].append(own.argmax(dim=-1) == code[:, 0])
            rows[1].append(own.amax(dim=-1).exp())
            rows[2].append(slot[:, 0])
            rows[3].append(model.category_log_probs(hidden).argmax(dim=-1)[:, 0])
            free = free.scatter(-1, slot[..., None], False)
            if step + 1 < slots:
                hidden = paths.extend(slot, code)
                matches = ranker.sets.after(matches, slot.flatten(), code.flatten())
                prior = ranker.prior.given(matches, today.flatten())[:, None]
        for column, found in zip(columns, rows, strict=True):
            column.append(torch.stack(found, dim=1))
    right, sure, taken, named = (torch.cat(column) for column in columns)
    shares = one_hot(taken, slots).double().mean(dim=0)
    return {
        "code_accuracy": _means(right),
        "confidence": _means(sure),
        "agreement": _means(named[:, 1:] == named[:, :-1]),
        "slot_entropy": [round(abs(float(value)), 4) for value in torch.xlogy(shares, shares).sum(dim=-1)],
    }


def _means(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values.float().mean(dim=0)]
