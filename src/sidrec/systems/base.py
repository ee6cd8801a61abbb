"""What every recommender offers: fit, align, open; and how an opened one ranks items for a batch of users.

Everything here speaks in item indices (rows of the catalogue); `sidrec.recommender` translates ids.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec.data.catalog import Catalog
from sidrec.quantization.config import CodebookConfig

WEIGHTS = "weights.safetensors"
MODEL = "model.json"


@dataclass(frozen=True, slots=True)
class Query:
    """One user's known history, oldest first, and what is asked of it.

    `basket` numbers the events' baskets 0, 1, … in time order; events of one basket have no order.
    """

    items: NDArray[np.int64]
    times: NDArray[np.int64]
    basket: NDArray[np.int64]
    now: int
    k: int
    exclude_seen: bool
    think_until: float | None = None
    """On the monotonic clock, when a system that thinks at length stops and answers; None is when it is through."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items best first, their log-probabilities, and how many hypotheses of the search were real items."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    valid_beams: int
    stats: Mapping[str, float] = field(default_factory=dict)
    """What else a search says of itself, by names of the system's own; logged and watched, never read."""
    rationale: str = ""
    """What was thought in words before the answer."""
    hurried: bool = False
    """Whether thinking ended because its time was up."""


def ranking_of(
    items: NDArray[np.int64],
    scores: NDArray[np.floating[Any]],
    *,
    popularity: NDArray[np.int64],
    k: int,
    valid_beams: int,
    stats: Mapping[str, float] | None = None,
    rationale: str = "",
    hurried: bool = False,
) -> Ranking:
    """Return the k best items that have a score; equal ones go to the more popular, then to the lower index.

    Args:
        items: -1 where there is none.
        popularity: [catalogue item].
    """
    real = (items >= 0) & (scores > -np.inf)
    index, value = items[real], scores[real].astype(np.float32)
    order = np.lexsort((index, -popularity[index], -value))[:k]
    return Ranking(index[order], value[order], valid_beams, stats or {}, rationale, hurried)


@dataclass(frozen=True, slots=True)
class FitInputs:
    """What a system may learn from: days before `fit_end` only; tables are read when they are asked for.

    `training_set` has one row per user and day of the last `validation_days` of the fit period. `start` is a folder of
    weights to go on from, of a model over as many codes. `prepared` is what `Prepares.prepare` wrote; a fit that needs
    such a thing and is given None makes it.
    """

    baskets: pl.LazyFrame
    training_set: pl.LazyFrame
    catalog: Catalog
    codebook: Path
    fit_end: date
    seed: int
    threads: int
    start: Path | None = None
    prepared: Path | None = None
    validate: "Callable[[RankingModel], float] | None" = None
    """What training may stop early by, bigger being better; it must not see what the model is judged on."""


@runtime_checkable
class RankingModel(Protocol):
    """A fitted system that answers."""

    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return one ranking a query, at most `k` distinct items each, scores falling.

        Args:
            blocked: [item], items that no answer may hold.
        """
        ...


@runtime_checkable
class System(Protocol):
    """One paper's recommender, configured."""

    parts: ClassVar[tuple[str, ...]]
    """The files and folders of a model, by name: what a bundle holds of it. Whatever else lies beside them, such as
    `training_log.jsonl`, is read by people and studies."""

    def fit(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model` (`parts`, `training_log.jsonl`) and return a summary.

        A killed fit finds its checkpoints in `folder` and goes on from the last one.
        """
        ...

    def carry(self, source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
        """Write `folder/model`: the weights in `source`, whose catalogue was `before`, over an appended catalogue."""
        ...

    def align(self, model: Path, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/model_aligned`, learnt from the inputs that `model` was fitted on.

        A system without this stage links `model` and says `skipped` and why.
        """
        ...

    def open(self, folder: Path, catalog: Catalog) -> RankingModel:
        """Return the model whose weights lie in `folder` (a model's or a bundle's)."""
        ...

    def probe(self, model: RankingModel, queries: Sequence[Query], targets: Sequence[int]) -> dict[str, Any]:
        """Return what an opened model does on its way to known next items, {} where there is nothing to look at."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A system whose fit needs something that no training setting changes, and that is dear to make twice."""

    def prepare(self, inputs: FitInputs, folder: Path) -> dict[str, Any]:
        """Write `folder/prepared` and return a summary; a killed call goes on from what it left in `folder`.

        Args:
            inputs: as for a fit, but without training rows.
        """
        ...


@runtime_checkable
class Explanation(Protocol):
    """Why one user was recommended what."""

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data; `history` are titles, `items` what was recommended."""
        ...

    def lines(self) -> Iterator[str]:
        """Yield what a terminal shows below the user's name."""
        ...


@runtime_checkable
class ExplainingModel(RankingModel, Protocol):
    """Ranks as the model that it was made of, and keeps why."""

    @property
    def explanations(self) -> "Sequence[Explanation]":
        """Return those of the last rankings, one a query."""
        ...

    def page(self, users: Sequence[str], *, title: str) -> str:
        """Return the explanations as one HTML page, under the users' names.

        Raises:
            UsageError: Plotly is not installed.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """A system whose answers have reasons that can be shown."""

    def explaining(self, model: RankingModel) -> ExplainingModel:
        """Return an opened model of this system that keeps its reasons.

        Raises:
            UsageError: it was fitted in a way that leaves none.
        """
        ...


@runtime_checkable
class Plans(Protocol):
    """A system whose fit is worth looking at before it is paid for."""

    def plan(self, codebook: CodebookConfig, catalog: Catalog, baskets: pl.DataFrame, *, seed: int) -> dict[str, Any]:
        """Return what a fit would learn from, and under `missing` a sentence for each thing that it lacks here.

        Args:
            codebook: what semantic IDs will be made of.
            catalog: its semantic IDs stand in for those, which are not fitted yet.
        """
        ...


def link_unaligned(model: Path, folder: Path, reason: str) -> dict[str, Any]:
    """Make `folder/model_aligned` a copy of the supervised model, for a system with no alignment stage."""
    target = folder / "model_aligned"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(model, target)
    return {"skipped": reason}
