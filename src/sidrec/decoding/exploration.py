"""Which items an exploring answer shows: a draw of k candidates with a known chance for each, none for the rest.

The chances are fixed first, proportional to exp(score / temperature) as far as none exceeds 1, and sum to k. Systematic
sampling then meets them exactly: the candidates are laid end to end in random order, each as long as its chance, and
a comb of teeth one apart falls on them. A Plackett-Luce draw (Gumbel top-k) has no closed form for the chance that an
item is among the first k; this has, so what is logged is the chance itself (docs/adr/0024).

Source: systematic sampling with unequal probabilities, Madow, "On the theory of systematic sampling, II" (1949).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Exploration(BaseModel):
    """How many users see drawn answers, and how far from the best ones the draw goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, le=0.5, description="Share of users whose answers are drawn; they are in no experiment.")
    temperature: float = Field(gt=0, description="Of the log-probabilities; near 0 the best items are nearly sure.")
    candidates: int = Field(default=50, ge=2, le=200, description="Best items that a draw chooses from.")


def inclusion_probs(scores: NDArray[np.float32], k: int, temperature: float) -> NDArray[np.float64]:
    """Return each candidate's chance to be shown: they sum to k, and are all 1 where there are no more than k."""
    if len(scores) <= k:
        return np.ones(len(scores))
    weights = np.exp((scores.astype(np.float64) - float(scores.max())) / temperature)
    # A weight of zero would be an item that can never be shown and yet counts as a candidate.
    weights = np.maximum(weights, weights.max() * 1e-9)
    probs = np.zeros(len(scores))
    sure = np.zeros(len(scores), dtype=bool)
    while True:
        probs[~sure] = weights[~sure] * ((k - sure.sum()) / weights[~sure].sum())
        over = ~sure & (probs >= 1)
        if not over.any():
            return probs
        sure |= over
        probs[sure] = 1.0


def draw(probs: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows drawn, ascending: each with exactly its chance, as many as the chances sum to."""
    order = generator.permutation(len(probs))
    ends = np.cumsum(probs[order])
    total = round(float(ends[-1]))
    # Rounding must leave no tooth beyond the last end, where nothing lies.
    ends[-1] = total
    teeth = np.minimum(generator.random() + np.arange(total), np.nextafter(total, 0))
    return np.sort(order[np.searchsorted(ends, teeth, side="right")])


def generator_of(request_id: str, salt: str) -> np.random.Generator:
    """Return the random numbers of one request: the same ones whenever it is asked again."""
    digest = hashlib.sha256(f"{salt}/exploration\0{request_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
