"""An exploring user's answer: some of the best candidates, drawn with a known chance each, still best first.

Scores stay the model's and still descend: only which items are shown is random, never where they stand or what they
are worth.
"""

import dataclasses
from dataclasses import dataclass

from sidrec.decoding.exploration import Exploration, draw, generator_of, inclusion_probs
from sidrec.recommender import Answer


@dataclass(frozen=True, slots=True)
class Shown:
    """What a user gets; of a drawn answer, each item's place among the candidates and its chance to be shown."""

    answer: Answer
    ranks: list[int] | None = None
    propensities: list[float] | None = None


def best(answer: Answer, k: int) -> Shown:
    """Return the k best candidates."""
    return Shown(_rows(answer, list(range(min(k, len(answer.item_ids))))))


def drawn(answer: Answer, k: int, exploration: Exploration, *, request_id: str, salt: str) -> Shown:
    """Return k candidates drawn, the same ones whenever the request is asked again.

    An answer that is cold or degraded is no model's whole answer: nothing is drawn from it.
    """
    if answer.source != "model":
        return best(answer, k)
    probs = inclusion_probs(answer.scores, k, exploration.temperature)
    rows = draw(probs, generator_of(request_id, salt)).tolist()
    return Shown(_rows(answer, rows), ranks=rows, propensities=[float(probs[row]) for row in rows])


def _rows(answer: Answer, rows: list[int]) -> Answer:
    return dataclasses.replace(
        answer,
        item_ids=tuple(answer.item_ids[row] for row in rows),
        scores=answer.scores[rows],
        semantic_ids=answer.semantic_ids[rows],
    )
