"""Why an item was recommended: the path to it, replayed token by token in the model's own order.

A category is shown by its name, where it has one, and by its most popular items.

Axes: `user` rows of a batch, `item` recommended items of a user, `step` of a path, `slot` codebooks, `category`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sidrec.errors import UsageError
from sidrec.systems.answers import CHUNK
from sidrec.systems.base import Query, Ranking
from sidrec.systems.reg4rec.model import Paths
from sidrec.systems.reg4rec.order import preference
from sidrec.systems.reg4rec.rank import Reg4RecRanker, user_salt
from sidrec.systems.reg4rec.reasons import ExplainedItem, Explanation, NamedCategory, PathStep
from sidrec.systems.reg4rec.statistics import PRUNING_SURVIVAL

TITLES = 3
HISTORY = 8

Shown = Callable[[int], tuple[str | None, tuple[str, ...]]]


class ExplainingModel:
    """Ranks as the ranker does, and keeps why; implements `sidrec.systems.base.ExplainingModel`.

    Raises:
        UsageError: several slots are tried at a step, so that an item's path does not follow from the item.
    """

    def __init__(self, ranker: Reg4RecRanker) -> None:
        if ranker.search.slots_per_step > 1:
            raise UsageError(
                f"search.slots_per_step is {ranker.search.slots_per_step}, and only with 1 an item has one path",
                next_step="explain a bundle whose recipe has search.slots_per_step: 1",
            )
        self.ranker = ranker
        self.explanations: list[Explanation] = []

    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the ranker's rankings; `explanations` are theirs, in order."""
        rankings = self.ranker.rank(queries, beam_width=beam_width, blocked=blocked)
        self.explanations = []
        for first in range(0, len(queries), CHUNK):
            rows = slice(first, first + CHUNK)
            self.explanations += _explained(self.ranker, queries[rows], rankings[rows], blocked)
        return rankings

    def page(self, users: Sequence[str], *, title: str) -> str:
        """Return the last rankings' explanations as one HTML page, under the users' names."""
        from sidrec.systems.reg4rec.paths_page import paths_page

        return paths_page(dict(zip(users, self.explanations, strict=True)), title=title)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was said before each token of the items, in the order in which their slots are taken."""

    slot: Int[Tensor, "user item step"]
    confidence: Float[Tensor, "user item step"]
    log_prob: Float[Tensor, "user item step"]
    num_items: Int[Tensor, "user item step"]
    category: Int[Tensor, "user item step"]
    category_prob: Float[Tensor, "user item step"]


@torch.no_grad()
def replay(ranker: Reg4RecRanker, queries: Sequence[Query], items: Int[Tensor, "user item"]) -> Replayed:
    """Return the path to each item, its true codes fed back one by one."""
    model, sets = ranker.model, ranker.sets
    users, copies = items.shape
    memory = ranker.encode(queries)
    paths = Paths(model, memory, memory.rank.amax(dim=1, keepdim=True))
    hidden = paths.begin().expand(-1, copies, -1)
    paths.fork(copies)
    free = torch.ones(users, copies, sets.num_slots, dtype=torch.bool)
    salt = user_salt(queries)[:, None].expand(-1, copies)
    today = torch.zeros(users, copies, dtype=torch.int64)
    prior, matches, columns = ranker.prior.of_days(today), None, []
    for step in range(sets.num_slots):
        log_probs = model.slot_log_probs(hidden, prior, step)
        slot = preference(model.config.order, log_probs, free, salt).argmax(dim=-1)
        own = log_probs.gather(2, slot[..., None, None].expand(-1, -1, 1, sets.codebook_size))[:, :, 0]
        if matches is None:
            real, left = (sets.start.diff(dim=1) > 0)[slot], torch.full_like(slot, sets.num_items)
        else:
            real = sets.codes_left(matches, slot.flatten()).view(own.shape)
            left = matches.counts.view(slot.shape)
        code = sets.codes[items, slot]
        share = own.masked_fill(~real, -torch.inf).log_softmax(dim=-1).gather(-1, code[..., None])[..., 0]
        named = model.category_log_probs(hidden).max(dim=-1)
        columns.append((slot, own.amax(dim=-1).exp(), share, left, named.indices, named.values.exp()))
        free = free.scatter(-1, slot[..., None], False)
        if step + 1 < sets.num_slots:
            hidden = paths.extend(slot, code)
            matches = sets.after(matches, slot.flatten(), code.flatten())
            prior = ranker.prior.given(matches, today.flatten())
            prior = prior.view(users, copies, *prior.shape[1:])
    return Replayed(*(torch.stack(column, dim=-1) for column in zip(*columns, strict=True)))


def _explained(
    ranker: Reg4RecRanker, queries: Sequence[Query], rankings: Sequence[Ranking], blocked: NDArray[np.bool_]
) -> Iterator[Explanation]:
    catalog = ranker.catalog
    width = max(1, *(len(ranking.items) for ranking in rankings))
    # Rows have lists of different lengths: what fills them up is replayed and not read.
    items = torch.zeros(len(queries), width, dtype=torch.int64)
    for row, ranking in enumerate(rankings):
        items[row, : len(ranking.items)] = torch.from_numpy(ranking.items)
    told, shown = replay(ranker, queries, items), _shown(ranker, blocked)
    for row, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        explained = []
        for column, (item, score) in enumerate(zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True)):
            steps = tuple(_steps(ranker, told, row, column, item, shown))
            explained.append(
                ExplainedItem(
                    catalog.item_ids[item],
                    catalog.title(item),
                    score,
                    sum(step.log_prob for step in steps),
                    "repeat" if ranker.repeat is not None and item in query.items else "generator",
                    steps,
                )
            )
        newest = list(dict.fromkeys(query.items[::-1].tolist()))[:HISTORY]
        survival = ranking.stats.get(PRUNING_SURVIVAL)
        yield Explanation(tuple(map(catalog.title, newest)), survival, tuple(explained))


def _steps(ranker: Reg4RecRanker, told: Replayed, row: int, column: int, item: int, shown: Shown) -> Iterator[PathStep]:
    for step in range(ranker.sets.num_slots):
        slot, place = int(told.slot[row, column, step]), (row, column, step)
        named = None
        if ranker.model.config.category_weight:
            category = int(told.category[place])
            named = NamedCategory(category, float(told.category_prob[place]), *shown(category))
        yield PathStep(
            slot,
            int(ranker.sets.codes[item, slot]),
            float(told.confidence[place]),
            float(told.log_prob[place]),
            int(told.num_items[place]),
            named,
        )


def _shown(ranker: Reg4RecRanker, blocked: NDArray[np.bool_]) -> Shown:
    """Return a function of a category: its name, and titles of its most popular items that are not blocked."""
    known = ranker.categories
    popularity = ranker.catalog.popularity

    @cache
    def shown(category: int) -> tuple[str | None, tuple[str, ...]]:
        if known is None:
            return None, ()
        members = np.flatnonzero((known.of_item.numpy() == category) & ~blocked)
        typical = members[np.lexsort((members, -popularity[members]))][:TITLES].tolist()
        name = known.names[category] if category < len(known.names) else None
        return name, tuple(map(ranker.catalog.title, typical))

    return shown
