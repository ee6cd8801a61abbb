"""Why a user was recommended what, as data and as text: the path to each item, step by step."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

AnswerPath = Literal["generator", "repeat"]


@dataclass(frozen=True, slots=True)
class NamedCategory:
    """The category that a step names."""

    category: int
    category_prob: float
    name: str | None
    """The shop's; None for a cluster, which has none."""
    titles: tuple[str, ...]
    """Of its most popular items that may be recommended."""

    def __str__(self) -> str:
        """Return the name, or the number, with typical titles."""
        label = self.name or f"category {self.category}"
        return f"{label}: {'; '.join(self.titles)}" if self.titles else label


@dataclass(frozen=True, slots=True)
class PathStep:
    """One token of a recommended item, in the order taken, and the category named with it."""

    slot: int
    code: int
    confidence: float
    """Probability of the slot's best code, by which the slot was chosen before the others."""
    log_prob: float
    """Of the code, among those of the items that match the tokens before."""
    num_items: int
    """Items that match the tokens before; from 1 on there is nothing left to choose."""
    named: NamedCategory | None
    """None where the model was fitted without categories."""


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """A recommended item, its score in the answer, and the reasoning path to it."""

    item_id: str
    title: str
    score: float
    log_prob: float
    """The generator's own, the sum over the steps; `score` mixes it with the repeat path's."""
    path: AnswerPath
    """repeat: the history holds the item, so the score counts buying it again beside generating it."""
    steps: tuple[PathStep, ...]

    @property
    def consistency(self) -> float | None:
        """Share of neighbouring steps that name one category, which CORP looks at; None without categories."""
        named = [step.named.category for step in self.steps if step.named is not None]
        if len(named) < 2:
            return None
        return sum(one == other for one, other in itertools.pairwise(named)) / (len(named) - 1)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one user was recommended, and why."""

    history: tuple[str, ...]
    """Titles of the newest distinct items, newest first."""
    pruning_survival: float | None
    """Share of the paths tested by CORP that it left, over the whole search; None where it tested none."""
    items: tuple[ExplainedItem, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        value = asdict(self)
        for item, plain in zip(self.items, value["items"], strict=True):
            plain["consistency"] = item.consistency
        return value

    @property
    def pruning(self) -> str:
        """Return a sentence on what CORP did to the neighbours of these paths."""
        if self.pruning_survival is None:
            return "no path was tested for consistency"
        dropped = 1 - self.pruning_survival
        return f"{dropped:.0%} of the tested paths were pruned for naming other categories from step to step"

    def lines(self) -> Iterator[str]:
        """Yield what a terminal shows: every item with its path."""
        yield "; ".join(self.history)
        yield self.pruning
        for rank, item in enumerate(self.items, start=1):
            agree = "" if item.consistency is None else f", consistency {item.consistency:.0%}"
            yield f"{rank}. {item.title} ({item.item_id}), score {item.score:.2f}, path {item.path}{agree}"
            for step in item.steps:
                named = "" if step.named is None else f", names {step.named}"
                yield f"   slot {step.slot} code {step.code:<4}{said_of(step)}{named}"


def said_of(step: PathStep) -> str:
    """Return how sure the slot was, and how much of what was left the code has."""
    if step.num_items == 1:
        return "certain, one item is left"
    share = math.exp(step.log_prob)
    return f"confidence {step.confidence:4.0%}, {share:4.0%} of the {step.num_items:,} items left"
