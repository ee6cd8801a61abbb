"""Why a user was recommended what, as data and as text: thoughts by the titles of what they point at."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

AnswerPath = Literal["generator", "repeat"]


@dataclass(frozen=True, slots=True)
class PointedCluster:
    """A cluster as a thinking token sees it."""

    cluster: int
    cluster_prob: float
    cosine: float
    num_items: int
    """Items in it that fit the codes chosen before."""
    titles: tuple[str, ...]
    """Of the most popular of them; none where nothing is left."""


@dataclass(frozen=True, slots=True)
class CodeStep:
    """One code of a recommended item and the thought before it."""

    level: int
    code: int
    log_prob: float
    """Of the code, among those that can follow the codes before it."""
    nearest: tuple[PointedCluster, ...]
    """The clusters that the thinking token points at, nearest first; empty for a disambiguation code."""
    chosen: PointedCluster | None
    """The cluster of the code; None for a disambiguation code, which is in none."""

    @property
    def as_thought(self) -> bool | None:
        """Whether the code is in the cluster nearest to the thinking token; None without clusters."""
        return None if self.chosen is None else self.nearest[0].cluster == self.chosen.cluster


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """A recommended item, its score in the answer, and how the generator came to its codes."""

    item_id: str
    title: str
    score: float
    log_prob: float
    """The generator's own, the sum over the codes; `score` mixes it with the repeat path's."""
    path: AnswerPath
    """repeat: the history holds the item, so the score counts buying it again beside generating it."""
    steps: tuple[CodeStep, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one user was recommended, and why."""

    thinking: str
    history: tuple[str, ...]
    """Titles of the newest distinct items, newest first."""
    items: tuple[ExplainedItem, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        value = asdict(self)
        for item, plain in zip(self.items, value["items"], strict=True):
            for step, row in zip(item.steps, plain["steps"], strict=True):
                row["as_thought"] = step.as_thought
        return value

    def lines(self) -> Iterator[str]:
        """Yield what a terminal shows: the first thought once, then every item with its codes."""
        yield "; ".join(self.history)
        if self.items:
            yield "first thought of all recommendations"
            for cluster in self.items[0].steps[0].nearest:
                yield f"  {_cluster(cluster)}"
        for rank, item in enumerate(self.items, start=1):
            yield f"{rank}. {item.title} ({item.item_id}), score {item.score:.2f}, path {item.path}"
            for step in item.steps:
                if step.level > 0 and step.nearest:
                    yield f"   thinks   {_cluster(step.nearest[0])}"
                yield f"   code {step.code:<4}{_chosen(step)}"


def _cluster(cluster: PointedCluster) -> str:
    titles = "; ".join(cluster.titles) or "no item is left there"
    return f"{cluster.cluster_prob:4.0%} cluster {cluster.cluster}: {titles}"


def _chosen(step: CodeStep) -> str:
    share = f"{math.exp(step.log_prob):4.0%} of what can follow"
    if step.chosen is None:
        return f"{share}, tells it from items of the same codes"
    return f"{share}, as thought" if step.as_thought else f"{share}, not as thought: {_cluster(step.chosen).strip()}"
