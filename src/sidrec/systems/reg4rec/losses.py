"""REG4Rec's supervised loss: along a path in the model's own order, every free slot is asked for the target's code.

L = L_token / M + lambda L_cat / M; L_token sums over steps the mean of -log p_r(c*_r) over the free slots r, L_cat the
-log p_cat(y*). The true codes are fed back, the order is CRSS with exploration (REG4Rec, arXiv 2508.15308; the form is
our choice). A path always has M tokens, so an end token would say nothing, and there is none.

Axes: `user` rows of a batch, `point` predicted baskets, `target` items sampled from one, `row` point times target,
`slot` codebooks, `code` entries of one, `category` of items.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.decoding.token_sets import Matches
from sidrec.systems.batches import TrainingBatch
from sidrec.systems.reg4rec.config import Reg4RecTrainingConfig
from sidrec.systems.reg4rec.model import Memory, Paths, Reg4RecModel
from sidrec.systems.reg4rec.order import choose, preference
from sidrec.systems.reg4rec.prior import CodePrior


@dataclass(frozen=True, slots=True)
class Tables:
    """The frozen catalogue as the losses see it."""

    codes: Int[Tensor, "item slot"]
    category: Int[Tensor, " item"]
    prior: CodePrior

    def to(self, device: torch.device) -> "Tables":
        """Return the same tables on another device."""
        return Tables(self.codes.to(device), self.category.to(device), self.prior.to(device))


def losses(
    model: Reg4RecModel, batch: TrainingBatch, tables: Tables, training: Reg4RecTrainingConfig
) -> dict[str, Float[Tensor, ""]]:
    """Return `total` and its terms for one batch, or for one rank's part of it.

    The first step's state does not depend on the target, so its loss is over all items of the basket at once.
    """
    return losses_after(model, model.encode(batch.inputs, tables.codes), batch, tables, training)


def losses_after(
    model: Reg4RecModel, memory: Memory, batch: TrainingBatch, tables: Tables, training: Reg4RecTrainingConfig
) -> dict[str, Float[Tensor, ""]]:
    """Return the losses of a batch whose histories are encoded already."""
    config, slots = model.config, model.num_slots
    users, points, targets = batch.sampled.shape
    paths = Paths(model, memory, batch.limit)
    hidden = paths.begin(batch.same_day)
    log_probs = model.slot_log_probs(hidden, tables.prior.of_days(batch.prior_day), 0)
    spread = _point_distribution(
        batch, tables.codes + torch.arange(slots) * model.codebook_size, log_probs[0, 0].numel()
    )
    chosen = (spread.view_as(log_probs) * log_probs).sum(dim=-1)
    token = -(batch.point_weight * chosen.mean(dim=-1)).sum()
    category = torch.zeros_like(token)
    if config.category_weight:
        spread = _point_distribution(batch, tables.category[:, None], config.num_categories)
        category = -(batch.point_weight[..., None] * spread * model.category_log_probs(hidden)).sum()

    free = torch.ones(users, points, slots, dtype=torch.bool, device=hidden.device)
    salt = batch.limit + 31 * batch.prior_day.amin(dim=1, keepdim=True)
    exploration = training.exploration if config.order == "confidence" else 0.0
    slot = choose(preference(config.order, log_probs, free, salt), exploration, training.exploration_temperature)
    free = free.scatter(-1, slot[..., None], False)

    item = batch.sampled.flatten(1)
    weight = _per_target(batch.point_weight / targets, targets)
    slot, salt, free = _per_target(slot, targets), _per_target(salt, targets), _per_target(free, targets)
    day = _per_target(batch.prior_day, targets).flatten()
    true = tables.codes[item]
    matches: Matches | None = None
    paths.fork(targets)
    for step in range(1, slots):
        code = true.gather(-1, slot[..., None])[..., 0]
        hidden = paths.extend(slot, code)
        matches = tables.prior.sets.after(matches, slot.flatten(), code.flatten())
        prior = tables.prior.given(matches, day).view(*slot.shape, slots, -1)
        log_probs = model.slot_log_probs(hidden, prior, step)
        right = log_probs.gather(-1, true[..., None])[..., 0]
        token = token - (weight * (right * free).sum(dim=-1) / (slots - step)).sum()
        if config.category_weight:
            named = model.category_log_probs(hidden).gather(-1, tables.category[item][..., None])[..., 0]
            category = category - (weight * named).sum()
        slot = choose(preference(config.order, log_probs, free, salt), exploration, training.exploration_temperature)
        free = free.scatter(-1, slot[..., None], False)
    token, category = token / slots, category / slots
    return {"token": token, "category": category, "total": token + config.category_weight * category}


def _per_target(values: Tensor, targets: int) -> Tensor:
    """Return each point's values once for each of its sampled targets."""
    return values.repeat_interleave(targets, dim=1)


def _point_distribution(
    batch: TrainingBatch, labels: Int[Tensor, "item label"], size: int
) -> Float[Tensor, "user point size"]:
    """Return each point's mean indicator of its items' labels, over all items of its basket."""
    users, points = batch.limit.shape
    flat = torch.zeros(users * points * size, device=batch.target_weight.device)
    place = batch.target_point[:, None] * size + labels[batch.target_item]
    flat.index_add_(0, place.flatten(), batch.target_weight[:, None].expand_as(place).flatten())
    return flat.view(users, points, size)
