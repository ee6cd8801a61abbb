"""A draw shows each candidate with exactly the chance that is logged, by enumeration and by counting."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from sidrec.decoding.exploration import draw, generator_of, inclusion_probs


class Dealt:
    """Random numbers that were chosen: one order of the candidates and one place of the comb."""

    def __init__(self, order: tuple[int, ...], tooth: float) -> None:
        self.order, self.tooth = np.array(order), tooth

    def permutation(self, _: int) -> NDArray[np.int64]:
        return self.order

    def random(self) -> float:
        return self.tooth


def enumerated(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each candidate's chance over all orders, and over all places of the comb that differ in what they hit."""
    chance = np.zeros(len(probs))
    orders = list(permutations(range(len(probs))))
    for order in orders:
        edges = np.unique(np.r_[0.0, np.cumsum(probs[list(order)]) % 1, 1.0])
        for low, high in pairwise(edges):
            rows = draw(probs, Dealt(order, (low + high) / 2))  # type: ignore[arg-type]
            chance[rows] += (high - low) / len(orders)
    return chance


@pytest.mark.parametrize("temperature", [0.2, 1.0, 50.0])
def test_the_logged_chance_is_the_chance_by_enumeration(temperature: float) -> None:
    """Two of five, over all 120 orders and every place of the comb: to the twelfth digit, capped chances too."""
    probs = inclusion_probs(np.array([-0.2, -1.0, -1.1, -2.5, -3.0], np.float32), 2, temperature)

    assert enumerated(probs) == pytest.approx(probs, abs=1e-12)
    assert (probs.max() == 1.0) == (temperature == 0.2)


def test_a_thousand_requests_show_an_item_as_often_as_its_chance_says() -> None:
    """The generator of the request ids counts as chance does: all within the 99.9 % bound, of 10 candidates."""
    probs = inclusion_probs(-0.4 * np.arange(10, dtype=np.float32), 3, 1.0)
    counts = np.zeros(10)
    for number in range(1000):
        counts[draw(probs, generator_of(f"request-{number}", "s"))] += 1
    sure = probs >= 1
    z = (counts - 1000 * probs)[~sure] / np.sqrt(1000 * probs * (1 - probs))[~sure]

    assert np.abs(z).max() < norm.ppf(1 - 0.0005 / len(z))
    assert (counts[sure] == 1000).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-60, 0), min_size=1, max_size=60).map(lambda one: np.sort(np.array(one, np.float32))[::-1]),
    st.integers(1, 20),
    st.floats(0.05, 20),
    st.integers(0, 2**32),
)
def test_every_draw_is_k_distinct_candidates(
    scores: NDArray[np.float32], k: int, temperature: float, seed: int
) -> None:
    """Chances lie in (0, 1], sum to k and never rise with the rank; a draw has k rows, each once, best first."""
    probs = inclusion_probs(scores, k, temperature)
    rows = draw(probs, np.random.default_rng(seed))
    expected = min(k, len(scores))

    assert probs.sum() == pytest.approx(expected)
    assert (probs > 0).all()
    assert (probs <= 1).all()
    assert (np.diff(probs) <= 1e-12).all()
    assert len(set(rows.tolist())) == len(rows) == expected
    assert (np.diff(rows) > 0).all()


def test_a_request_is_drawn_alike_whenever_it_is_asked() -> None:
    """By its id and the revision's salt, and by nothing else."""
    first, again, other = (generator_of(*one).random() for one in (("r1", "s"), ("r1", "s"), ("r1", "t")))

    assert first == again != other
