"""The repeat path: with probability g a user buys from the own history again, else what the generator says.

log p(item) = logaddexp(log(1 - g) + log p_model, log g + log p_copy). p_copy is a softmax over the history's items of
a few features of how often and how lately each was bought, how much it sells now, and how probable the generator finds
it; g is a logistic of a few features of the history. Both are learnt by maximum likelihood on rows that the generator
was not trained on; then g's offset is raised as far as it helps the head of those rows' lists, where likelihood, which
looks at the whole basket, holds too many new items to be sure.

Axes: `row` users, `item` distinct history items (padded), `target` items of the basket to predict, `feature`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from sidrec.clock import DAY_S
from sidrec.decoding.trie import NONE
from sidrec.evaluation.metrics import ndcg_at_k
from sidrec.systems.base import Query, Ranking

COPY_FEATURES = ("log_baskets", "log_decayed", "log_age", "in_last_basket", "log_recent", "log_p_model")
GATE_FEATURES = ("one", "log_baskets", "log_items", "log_repeats", "log_gap", "log_p_history")
OFFSETS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# Below this a decayed count is as good as never.
FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class HistoryItems:
    """Distinct items of each user's history with what the copy distribution looks at."""

    items: Int[Tensor, "row item"]  # NONE is padding
    features: Float[Tensor, "row item feature"]  # COPY_FEATURES but the last
    gate: Float[Tensor, "row feature"]  # GATE_FEATURES but the last


def log_recent(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the feature of items that were in so many baskets of the last 28 days before the fit ended."""
    return np.log1p(counts.astype(np.float64))


def history_items(queries: Sequence[Query], half_life_days: float, recent: NDArray[np.float64]) -> HistoryItems:
    """Return the distinct items and features of each history.

    Args:
        recent: [catalogue item], `log_recent` on the day that the generator ended.
    """
    found = [_of_one(query, half_life_days, recent) for query in queries]
    width = max((len(items) for items, _, _ in found), default=0)
    items = np.full((len(found), width), NONE, dtype=np.int64)
    features = np.zeros((len(found), width, len(COPY_FEATURES) - 1))
    for row, (own, values, _) in enumerate(found):
        items[row, : len(own)] = own
        features[row, : len(own)] = values
    gate = np.stack([values for _, _, values in found])
    return HistoryItems(torch.from_numpy(items), torch.from_numpy(features), torch.from_numpy(gate))


def _of_one(
    query: Query, half_life_days: float, recent: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
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
    values = np.stack([np.log1p(baskets), np.log(decayed + FLOOR), np.log1p(latest), last, recent[items]], axis=1)
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
    stay = logsigmoid(-gate)[:, None] + log_p_model.double()
    return torch.logaddexp(stay, logsigmoid(gate)[:, None] + log_copy)


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
    copy = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
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


def with_best_offset(
    path: RepeatPath,
    history: HistoryItems,
    history_log_p: Float[Tensor, "row item"],
    new: Sequence[Ranking],
    targets: Int[Tensor, "row target"],
    *,
    k: int = 10,
) -> tuple[RepeatPath, float, float]:
    """Return the path with the gate's offset raised by that of `OFFSETS` that ranks best, the offset, and its NDCG@k.

    Args:
        new: each row's best items outside the history, by the generator alone.
    """
    width = max(len(ranking.items) for ranking in new)
    items = torch.full((len(new), width), NONE)
    log_p = torch.full((len(new), width), -torch.inf, dtype=torch.float64)
    for row, ranking in enumerate(new):
        items[row, : len(ranking.items)] = torch.from_numpy(ranking.items)
        log_p[row, : len(ranking.items)] = torch.from_numpy(ranking.scores).double()
    candidates = torch.cat([history.items, items], dim=1)
    sizes = (targets != NONE).sum(dim=1).numpy()
    best = (path, 0.0, -1.0)
    for offset in OFFSETS:
        shifted = replace(path, gate_weights=(path.gate_weights[0] + offset, *path.gate_weights[1:]))
        log_copy, gate = shifted.log_copy(history, history_log_p)
        bought = _mixed(history_log_p, log_copy, gate).masked_fill(history.items == NONE, -torch.inf)
        scores = torch.cat([bought, logsigmoid(-gate)[:, None] + log_p], dim=1)
        top = candidates.gather(1, scores.topk(min(k, scores.shape[1]), dim=1).indices)
        hits = ((top[:, :, None] == targets[:, None, :]) & (top != NONE)[:, :, None]).any(dim=-1).numpy()
        ndcg = float(ndcg_at_k(hits, sizes, k).mean())
        if ndcg > best[2]:
            best = (shifted, offset, ndcg)
    return best
