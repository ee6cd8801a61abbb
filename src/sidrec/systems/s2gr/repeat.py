"""The repeat path: with probability g a user buys from the own history again, else what the generator says.

log p(item) = logaddexp(log(1 - g) + log p_model, log g + log p_copy). p_copy is a softmax over the history's items of
a few features of how often, how lately and how probably (by the generator) each is bought; g is a logistic of a few
features of the history. Both are learnt by maximum likelihood on rows that the generator was not trained on.

Axes: `row` users, `item` distinct history items (padded), `target` items of the basket to predict, `feature`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.clock import DAY_S
from sidrec.decoding.trie import NONE
from sidrec.systems.base import Query

COPY_FEATURES = ("log_baskets", "log_decayed", "log_age", "in_last_basket", "log_p_model")
GATE_FEATURES = ("one", "log_baskets", "log_items", "log_repeats", "log_gap", "log_p_history")
# Below this a decayed count is as good as never.
FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class HistoryItems:
    """Distinct items of each user's history with what the copy distribution looks at."""

    items: Int[Tensor, "row item"]  # NONE is padding
    features: Float[Tensor, "row item feature"]  # COPY_FEATURES but the last
    gate: Float[Tensor, "row feature"]  # GATE_FEATURES but the last


def history_items(queries: Sequence[Query], half_life_days: float) -> HistoryItems:
    """Return the distinct items and features of each history."""
    found = [_of_one(query, half_life_days) for query in queries]
    width = max((len(items) for items, _, _ in found), default=0)
    items = np.full((len(found), width), NONE, dtype=np.int64)
    features = np.zeros((len(found), width, len(COPY_FEATURES) - 1))
    for row, (own, values, _) in enumerate(found):
        items[row, : len(own)] = own
        features[row, : len(own)] = values
    gate = np.stack([values for _, _, values in found])
    return HistoryItems(torch.from_numpy(items), torch.from_numpy(features), torch.from_numpy(gate))


def _of_one(query: Query, half_life_days: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    # An item twice in a basket is bought once there.
    pairs = np.unique(np.stack([query.items, query.basket]), axis=1)
    basket_time = np.zeros(int(query.basket[-1]) + 1)
    basket_time[query.basket] = query.times
    age = np.maximum(query.now - basket_time[pairs[1]], 0) / DAY_S
    items, slot = np.unique(pairs[0], return_inverse=True)
    baskets = np.bincount(slot).astype(np.float64)
    decayed = np.bincount(slot, 0.5 ** (age / half_life_days))
    latest = np.full(len(items), np.inf)
    np.minimum.at(latest, slot, age)
    last = np.bincount(slot, pairs[1] == query.basket[-1])
    values = np.stack([np.log1p(baskets), np.log(decayed + FLOOR), np.log1p(latest), last], axis=1)
    num_baskets = len(np.unique(query.basket))
    repeats = 1 - len(items) / pairs.shape[1]
    gap = float(age.min())
    gate = np.array([1.0, np.log(num_baskets), np.log(len(items)), np.log(repeats + 0.02), np.log1p(gap)])
    return items, values, gate


@dataclass(frozen=True, slots=True)
class RepeatPath:
    """Learnt weights of the copy distribution and of the gate."""

    copy_weights: tuple[float, ...]
    gate_weights: tuple[float, ...]
    half_life_days: float

    def log_copy(
        self, history: HistoryItems, log_p_model: Float[Tensor, "row item"]
    ) -> tuple[Float[Tensor, "row item"], Float[Tensor, " row"]]:
        """Return log p_copy of each history item (-inf for padding) and the gate's logit."""
        return _log_copy(
            torch.tensor(self.copy_weights, dtype=torch.float64),
            torch.tensor(self.gate_weights, dtype=torch.float64),
            history,
            log_p_model,
        )

    def mixed(
        self, log_p_model: Float[Tensor, "row item"], log_copy: Float[Tensor, "row item"], gate: Float[Tensor, " row"]
    ) -> Float[Tensor, "row item"]:
        """Return log p of items from both paths; an item outside the history has log_copy -inf."""
        return _mixed(log_p_model, log_copy, gate)


def _log_copy(
    copy: Float[Tensor, " feature"],
    gate: Float[Tensor, " gate_feature"],
    history: HistoryItems,
    log_p_model: Float[Tensor, "row item"],
) -> tuple[Float[Tensor, "row item"], Float[Tensor, " row"]]:
    padding = history.items == NONE
    model = log_p_model.double().masked_fill(padding, 0.0)
    scores = history.features @ copy[:-1] + copy[-1] * model
    log_copy = scores.masked_fill(padding, -torch.inf).log_softmax(dim=-1)
    known = log_p_model.double().masked_fill(padding, -torch.inf).logsumexp(dim=-1)
    return log_copy, history.gate @ gate[:-1] + gate[-1] * known


def _mixed(
    log_p_model: Float[Tensor, "row item"], log_copy: Float[Tensor, "row item"], gate: Float[Tensor, " row"]
) -> Float[Tensor, "row item"]:
    stay = torch.nn.functional.logsigmoid(-gate)[:, None] + log_p_model.double()
    return torch.logaddexp(stay, torch.nn.functional.logsigmoid(gate)[:, None] + log_copy)


def fit_repeat_path(
    history: HistoryItems,
    history_log_p: Float[Tensor, "row item"],
    targets: Int[Tensor, "row target"],
    target_log_p: Float[Tensor, "row target"],
    *,
    half_life_days: float,
    ridge: float = 1e-3,
) -> tuple[RepeatPath, float]:
    """Return the path that makes the rows' baskets most probable, and its mean loss (nats an item, rows equal).

    A row's loss is the mean over its targets; `NONE` targets are padding.
    """
    copy = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    gate = torch.zeros(len(GATE_FEATURES), dtype=torch.float64, requires_grad=True)
    real = targets != NONE
    # Where in the history each target stands: the last column is "nowhere".
    match = (history.items[:, None, :] == targets[:, :, None]) & real[:, :, None]
    place = torch.where(match.any(dim=-1), match.int().argmax(dim=-1), history.items.shape[1])
    model = target_log_p.double().masked_fill(~real, 0.0)

    def loss() -> Tensor:
        log_copy, logit = _log_copy(copy, gate, history, history_log_p)
        nowhere = torch.full((len(targets), 1), -1e30, dtype=torch.float64)
        copied = torch.cat([log_copy.clamp(min=-1e30), nowhere], dim=1).gather(1, place)
        nats = -(_mixed(model, copied, logit) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return nats.mean()

    optimizer = torch.optim.LBFGS([copy, gate], lr=0.5, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss() + ridge * (copy.square().sum() + gate.square().sum())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        final = float(loss())
    path = RepeatPath(tuple(copy.detach().tolist()), tuple(gate.detach().tolist()), half_life_days)
    return path, final
