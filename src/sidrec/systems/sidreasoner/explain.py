"""Why an item was recommended: the rationale in front of the answer, and what the same item is worth without one.

Axes: `row` queries, `item` recommended items of one.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidrec.codebook.page import html_page
from sidrec.decoding.nodes import NONE
from sidrec.systems.answers import CHUNK
from sidrec.systems.base import Query, Ranking
from sidrec.systems.explanation_page import STYLE
from sidrec.systems.sidreasoner.rank import SIDReasonerRanker

HISTORY = 8


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """A recommended item, its score in the answer, and its log-probability behind an empty rationale."""

    item_id: str
    title: str
    score: float
    direct_log_prob: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one user was recommended, and what the model wrote before."""

    history: tuple[str, ...]
    """Titles of the newest distinct items, newest first."""
    rationale: str
    """As written; empty where the answer was direct."""
    told: str
    """The rationale with titles behind the semantic IDs."""
    items: tuple[ExplainedItem, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield what a terminal shows: the rationale, and every item with what thinking did to it."""
        yield "; ".join(self.history)
        yield self.told or "answered directly, without a rationale"
        for rank, item in enumerate(self.items, start=1):
            yield f"{rank}. {item.title} ({item.item_id}), score {item.score:.2f}{self.change(item)}"

    def change(self, item: ExplainedItem) -> str:
        """Return what the rationale did to an item's log-probability, in words."""
        if not self.rationale:
            return ""
        return f", {item.direct_log_prob:.2f} without the rationale ({item.score - item.direct_log_prob:+.2f})"


class ExplainingModel:
    """Ranks as the ranker does, and keeps why; implements `sidrec.systems.base.ExplainingModel`."""

    def __init__(self, ranker: SIDReasonerRanker) -> None:
        self.ranker = ranker
        self.explanations: list[Explanation] = []

    def rank(self, queries: Sequence[Query], *, beam_width: int, blocked: NDArray[np.bool_]) -> list[Ranking]:
        """Return the ranker's rankings; `explanations` are theirs, in order."""
        rankings = self.ranker.rank(queries, beam_width=beam_width, blocked=blocked)
        self.explanations = []
        for first in range(0, len(queries), CHUNK):
            rows = slice(first, first + CHUNK)
            self.explanations += self._explained(queries[rows], rankings[rows])
        return rankings

    def page(self, users: Sequence[str], *, title: str) -> str:
        """Return the last rankings' explanations as one HTML page, under the users' names."""
        return rationales_page(dict(zip(users, self.explanations, strict=True)), title=title)

    def _explained(self, queries: Sequence[Query], rankings: Sequence[Ranking]) -> Iterator[Explanation]:
        catalog = self.ranker.catalog
        items = torch.full((len(queries), max(len(own.items) for own in rankings) or 1), NONE)
        for row, own in enumerate(rankings):
            items[row, : len(own.items)] = torch.from_numpy(own.items)
        [direct] = self.ranker.score(queries, [items])
        for row, (query, own) in enumerate(zip(queries, rankings, strict=True)):
            newest = list(dict.fromkeys(query.items[::-1].tolist()))[:HISTORY]
            yield Explanation(
                tuple(map(catalog.title, newest)),
                own.rationale,
                self._told(own.rationale),
                tuple(
                    ExplainedItem(catalog.item_ids[item], catalog.title(item), score, float(direct[row, column]))
                    for column, (item, score) in enumerate(zip(own.items.tolist(), own.scores.tolist(), strict=True))
                ),
            )

    def _told(self, rationale: str) -> str:
        """Return a rationale in which every item that it names has its title behind it."""
        titles = {name: self.ranker.catalog.title(item) for item, name in self._mentions(rationale)}
        if not titles:
            return rationale
        # Not where the name is the beginning of a longer one.
        named = re.compile("|".join(f"{re.escape(name)}(?!<[a-z]_)" for name in titles))
        return named.sub(lambda found: f"{found[0]} [{titles[found[0]]}]", rationale)

    def _mentions(self, rationale: str) -> Iterator[tuple[int, str]]:
        for item, name in self.ranker.backbone.vocab.mentions(rationale):
            if item is not None:
                yield item, name


def rationales_page(explanations: dict[str, Explanation], *, title: str) -> str:
    """Return the page of explanations by user; it opens from disk without a network, and titles are escaped."""
    return html_page(title, _parts(explanations), style=STYLE)


def _parts(explanations: dict[str, Explanation]) -> Iterator[str]:
    yield (
        "<p class='note'>The model writes a rationale and then names items, which are searched under the catalogue. "
        "A score is an item's log-probability behind the rationale; beside it stands what the same item has without "
        "one. A rationale is what the model wrote, which need not be why it chose.</p>"
    )
    for user, own in explanations.items():
        yield f"<h2>{html.escape(user)}</h2>"
        yield f"<p><b>Bought lately:</b> {html.escape('; '.join(own.history))}</p>"
        told = html.escape(own.told) if own.told else "answered directly, without a rationale"
        yield f"<p><b>Rationale:</b> {told}</p>"
        if not own.items:
            yield "<p class='note'>Nothing is left to recommend.</p>"
        yield "<ol>"
        for item in own.items:
            said = f"{item.title} (item {item.item_id}), score {item.score:.2f}{own.change(item)}"
            yield f"<li>{html.escape(said)}</li>"
        yield "</ol>"
