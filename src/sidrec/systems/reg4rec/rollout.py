"""Paths sampled from the policy, and the policy's log-probability of given ones.

An action is a token and the category named with it: pi(r, j, y) = softmax over free slots (conf_r / T_c) p_r(j)
p_cat(y). The category earns rewards, so it is part of the action (our choice; REG4Rec, arXiv 2508.15308, leaves the
policy open). With another order than CRSS the slot is no choice and adds nothing.

Axes: `user` rows of a batch, `path` sampled for a user, `step` of a path, `slot` codebooks, `code` entries of one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sidrec.systems.reg4rec.model import Memory, Paths, Reg4RecModel
from sidrec.systems.reg4rec.order import preference
from sidrec.systems.reg4rec.prior import CodePrior


@dataclass(frozen=True, slots=True)
class Walk:
    """Whole paths, their actions, and the log-probability of each action."""

    slot: Int[Tensor, "user path step"]
    code: Int[Tensor, "user path step"]
    category: Int[Tensor, "user path step"]
    log_probs: Float[Tensor, "user path step"]

    @property
    def tokens(self) -> Int[Tensor, "user path slot"]:
        """Return each path's codes by slot."""
        return torch.zeros_like(self.code).scatter(2, self.slot, self.code)


@dataclass(frozen=True, slots=True)
class Start:
    """Where paths begin: encoded histories, what each may see of its own, and the day whose prior it has."""

    memory: Memory
    limit: Int[Tensor, "user 1"]
    prior: CodePrior
    day: Int[Tensor, "user 1"]


def walk(
    model: Reg4RecModel, start: Start, *, slot_temperature: float, samples: int = 0, given: Walk | None = None
) -> Walk:
    """Return `samples` paths a user by the policy, or the log-probabilities of `given` ones.

    Torch's own random state decides the draws.
    """
    copies = samples if given is None else given.slot.shape[1]
    paths = Paths(model, start.memory, start.limit)
    hidden = paths.begin().expand(-1, copies, -1)
    paths.fork(copies)
    users, slots = len(start.limit), model.num_slots
    free = torch.ones(users, copies, slots, dtype=torch.bool, device=hidden.device)
    # A random order is the user's: neither the path nor what is drawn changes it.
    salt = start.limit.expand(-1, copies) + torch.arange(users, device=hidden.device)[:, None]
    columns: list[list[Tensor]] = [[], [], [], []]
    prior, matches = start.prior.of_days(start.day), None
    for step in range(slots):
        log_probs = model.slot_log_probs(hidden, prior, step)
        slot_log_probs = _slot_log_probs(model, log_probs, free, salt, slot_temperature)
        named = model.category_log_probs(hidden)
        slot = _draw(slot_log_probs) if given is None else given.slot[..., step]
        own = log_probs.gather(2, slot[..., None, None].expand(-1, -1, 1, log_probs.shape[-1]))[:, :, 0]
        code = _draw(own) if given is None else given.code[..., step]
        category = _draw(named) if given is None else given.category[..., step]
        log_prob = _at(slot_log_probs, slot) + _at(own, code)
        if model.config.category_weight:
            log_prob = log_prob + _at(named, category)
        for column, value in zip(columns, (slot, code, category, log_prob), strict=True):
            column.append(value)
        free = free.scatter(-1, slot[..., None], False)
        if step + 1 < slots:
            hidden = paths.extend(slot, code)
            matches = start.prior.sets.after(matches, slot.flatten(), code.flatten())
            prior = start.prior.given(matches, start.day.expand(slot.shape).flatten())
            prior = prior.view(*slot.shape, *prior.shape[1:])
    return Walk(*(torch.stack(column, dim=-1) for column in columns))


def _slot_log_probs(
    model: Reg4RecModel,
    log_probs: Float[Tensor, "user path slot code"],
    free: Tensor,
    salt: Int[Tensor, "user path"],
    temperature: float,
) -> Float[Tensor, "user path slot"]:
    if model.config.order == "confidence":
        wanted = log_probs.amax(dim=-1).exp() / temperature
        return wanted.masked_fill(~free, -torch.inf).log_softmax(dim=-1)
    slot = preference(model.config.order, log_probs, free, salt).argmax(dim=-1, keepdim=True)
    certain = torch.full(free.shape, -torch.inf, dtype=log_probs.dtype, device=free.device)
    return certain.scatter(-1, slot, 0.0)


def _draw(log_probs: Float[Tensor, "user path choice"]) -> Int[Tensor, "user path"]:
    return torch.multinomial(log_probs.detach().exp().flatten(0, 1), 1).view(log_probs.shape[:2])


def _at(log_probs: Float[Tensor, "user path choice"], index: Int[Tensor, "user path"]) -> Float[Tensor, "user path"]:
    return log_probs.gather(-1, index[..., None])[..., 0]
