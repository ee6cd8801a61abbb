"""A bundle answers requests: the one path from a history to items, offline and online."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sidrec.bundle import open_bundle
from sidrec.clock import DAY_S
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.recipe import Recipe, build
from sidrec.systems.base import Query, Ranking, RankingModel
from sidrec.systems.popularity import popularity_log_probs, ranked

Source = Literal["model", "cold", "degraded"]


REPEAT_SHARE = "repeat_share"
"""Name under which an answer of any system says which share of its items repeats the history."""


@dataclass(frozen=True, slots=True)
class Request:
    """One user's history, oldest first, and how many items are wanted.

    Items of one UTC day are one basket; without `times` each item is a basket of its own, bought now.
    `now` is in unix seconds; 0 is the bundle's as-of time.
    """

    item_ids: tuple[str, ...]
    times: tuple[int, ...]
    k: int = 10
    exclude_seen: bool = False
    now: int = 0
    think_until: float | None = None
    """As in `sidrec.systems.base.Query`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Distinct items best first, never filler: n may be below the k that was asked for.

    `scores` are log-probabilities iff `source` is `model`; `semantic_ids` has -1 for a missing last code.
    """

    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    semantic_ids: NDArray[np.int32]
    source: Source
    beam_width: int
    valid_beams: int
    known_items: int
    stats: Mapping[str, float] = field(default_factory=dict)
    """What the search says of itself (`sidrec.systems.base.Ranking.stats`)."""
    rationale: str = ""


class Recommender:
    """An opened bundle."""

    def __init__(
        self,
        *,
        bundle_id: str,
        kind: str,
        catalog: Catalog,
        model: RankingModel,
        decode: Mapping[str, Any],
    ) -> None:
        self.bundle_id = bundle_id
        self.kind = kind
        self.catalog = catalog
        self.decode = dict(decode)
        self.num_codes = catalog.num_codes
        self.as_of_time = int(decode["as_of_time"])
        self.beam_width = int(decode["beam_width"])
        self._model = model
        self._cold = popularity_log_probs(catalog)
        self._blocked = catalog.removed

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = 1) -> Self:
        """Return the recommender of a bundle whose every digest holds.

        Args:
            threads: torch's intra-op threads in this process from here on; None leaves them as they are.

        Raises:
            BundleError: a file is missing, changed or mixed in from elsewhere; it is named.
        """
        bundle = open_bundle(folder)
        _limit_threads(threads)
        return cls.from_parts(
            bundle_id=bundle.bundle_id,
            recipe=bundle.recipe,
            catalog=Catalog.read(bundle.folder / "catalogue.parquet"),
            weights=bundle.folder,
            decode=bundle.decode,
        )

    @classmethod
    def from_parts(
        cls, *, bundle_id: str, recipe: Recipe, catalog: Catalog, weights: Path, decode: Mapping[str, Any]
    ) -> Self:
        """Return a recommender whose model lies in the folder `weights`, digests unchecked."""
        model = build(recipe).open(weights, catalog)
        return cls(bundle_id=bundle_id, kind=recipe.kind, catalog=catalog, model=model, decode=decode)

    def recommend(self, requests: Sequence[Request], *, beam_width: int | None = None) -> list[Answer]:
        """Return one answer a request, in order; the requests share one batched pass.

        Unknown items of a history are dropped. Where none is left, the answer is the popular items and says
        `cold`. A `beam_width` below the bundle's own makes the answers `degraded`, and so does thinking that ran out of
        time.

        Raises:
            UsageError: a request asks for no items, or its times do not match its items.
        """
        width = self.beam_width if beam_width is None else min(beam_width, self.beam_width)
        if width < 1:
            raise UsageError(f"beam_width is {beam_width}, expected at least 1")
        queries = [self._query(request) for request in requests]
        warm = [row for row, query in enumerate(queries) if len(query.items)]
        rankings: dict[int, Ranking] = {}
        if warm:
            answered = self._model.rank([queries[row] for row in warm], beam_width=width, blocked=self._blocked)
            rankings = dict(zip(warm, answered, strict=True))
        source: Source = "model" if width == self.beam_width else "degraded"
        return [
            self._answer(_with_repeats(rankings[row], query), source, width, len(query.items))
            if row in rankings
            else self._answer(ranked(self._cold, ~self._blocked, query.k), "cold", 0, 0)
            for row, query in enumerate(queries)
        ]

    def set_takedown(self, item_ids: Iterable[str]) -> None:
        """Keep exactly these items, beside the catalogue's tombstones, out of every answer; unknown ids do nothing."""
        blocked = self.catalog.removed
        blocked[self.catalog.known(item_ids)] = True
        self._blocked = blocked

    def _query(self, request: Request) -> Query:
        if request.k < 1:
            raise UsageError(f"k is {request.k}, expected at least 1")
        if request.times and len(request.times) != len(request.item_ids):
            raise UsageError(f"{len(request.item_ids)} items but {len(request.times)} times in one history")
        now = request.now or self.as_of_time
        index_of = self.catalog.index_of
        known = [row for row, item_id in enumerate(request.item_ids) if item_id in index_of]
        items = np.array([index_of[request.item_ids[row]] for row in known], dtype=np.int64)
        if request.times:
            times = np.array([request.times[row] for row in known], dtype=np.int64)
            basket = np.unique(times // DAY_S, return_inverse=True)[1].astype(np.int64)
            order = np.argsort(basket, kind="stable")
            items, times, basket = items[order], times[order], basket[order]
        else:
            times = np.full(len(items), now, dtype=np.int64)
            basket = np.arange(len(items), dtype=np.int64)
        return Query(items, times, basket, now, request.k, request.exclude_seen, request.think_until)

    def _answer(self, ranking: Ranking, source: Source, width: int, known_items: int) -> Answer:
        valid = 0 if source == "cold" else ranking.valid_beams
        return Answer(
            item_ids=tuple(self.catalog.item_ids[index] for index in ranking.items.tolist()),
            scores=ranking.scores,
            semantic_ids=self.catalog.codes[ranking.items],
            source="degraded" if ranking.hurried else source,
            beam_width=width,
            valid_beams=valid,
            known_items=known_items,
            stats=ranking.stats,
            rationale=ranking.rationale,
        )


def _with_repeats(ranking: Ranking, query: Query) -> Ranking:
    """Return a ranking that also says which share of its items its user has had before; of an empty one nothing."""
    if not len(ranking.items):
        return ranking
    share = float(np.isin(ranking.items, query.items).mean())
    return dataclasses.replace(ranking, stats={**ranking.stats, REPEAT_SHARE: round(share, 4)})


def _limit_threads(threads: int | None) -> None:
    """Set torch's intra-op threads: two on a busy machine are slower than one (spinning at every small GEMM)."""
    if threads is None:
        return
    import torch

    torch.set_num_threads(threads)
