"""Assignment agrees with the plain definition of distance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.quantization import assign


def rows(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("num_codes", [1, 2, 7, 300])
def test_nearest_codes_agree_with_brute_force(num_codes: int) -> None:
    """The expanded distance picks the codeword that the plain distance picks."""
    vectors, codebook = rows(33, 5), rows(num_codes, 5, seed=1)

    torch.testing.assert_close(assign.nearest_codes(vectors, codebook), torch.cdist(vectors, codebook).argmin(dim=-1))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring a few rows at a time gives the codes of scoring all at once."""
    vectors, codebook, usage = rows(301, 4), rows(9, 4, seed=1), torch.full((9,), 1 / 9, dtype=torch.float64)
    plain = assign.nearest_codes(vectors, codebook)
    monkeypatch.setattr(assign, "_SCORES", 64 * 9)

    torch.testing.assert_close(assign.nearest_codes(vectors, codebook), plain)
    torch.testing.assert_close(assign.balanced_codes(vectors, codebook, usage, strength=0.5, bound=0.5), plain)


def test_exact_ties_go_to_the_lowest_code() -> None:
    """Two equal codewords: the first one wins."""
    codebook = torch.tensor([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0]])

    assert assign.nearest_codes(torch.zeros(1, 2), codebook).tolist() == [1]


def test_no_vectors_have_no_codes() -> None:
    """An empty batch is allowed."""
    assert assign.nearest_codes(torch.zeros(0, 3), torch.zeros(4, 3)).shape == (0,)


def test_squared_distances_are_those_of_the_definition_and_never_negative() -> None:
    """Also where a vector is a codeword, which rounds below zero in the expanded form."""
    vectors = 1e3 + rows(20, 6).float()
    distances = assign.squared_distances(vectors, vectors)

    assert float(distances.min()) >= 0
    expected = (vectors[:, None] - vectors[None]).square().sum(dim=-1)
    torch.testing.assert_close(distances, expected, atol=2.0, rtol=1e-3)


@given(st.integers(0, 10_000), st.floats(0, 5), st.floats(0, 0.99))
@settings(max_examples=50, deadline=None)
def test_uniform_usage_keeps_the_nearest_code(seed: int, strength: float, bound: float) -> None:
    """d̃ has the argmin of the plain distance when all codes are used alike."""
    vectors, codebook = rows(40, 3, seed), rows(8, 3, seed + 1)
    usage = torch.full((8,), 1 / 8, dtype=torch.float64)

    balanced = assign.balanced_codes(vectors, codebook, usage, strength=strength, bound=bound)

    torch.testing.assert_close(balanced, assign.nearest_codes(vectors, codebook))


def test_usage_factors_worked_by_hand() -> None:
    """1 + clip(strength (usage K - 1), ± bound) for shares 0, .1, .3, .6 of K = 4 codes."""
    factors = assign.usage_factors(torch.tensor([0.0, 0.1, 0.3, 0.6]), strength=0.5, bound=0.5)

    # usage K - 1 = -1, -.6, .2, 1.4; halved -.5, -.3, .1, .7; the last is cut at .5.
    torch.testing.assert_close(factors, torch.tensor([0.5, 0.7, 1.1, 1.5]))


def test_a_crowded_code_loses_a_close_race_but_never_a_clear_one() -> None:
    """A vector 1.0 from a crowded and 1.2 from an idle code goes to the idle one; 1.0 against 3.0 stays."""
    codebook = torch.tensor([[0.0], [2.2], [-3.0]])
    usage = torch.tensor([0.8, 0.0, 0.2])

    assert assign.balanced_codes(torch.tensor([[1.0]]), codebook, usage, strength=0.5, bound=0.5).tolist() == [1]
    assert assign.balanced_codes(torch.tensor([[-0.2]]), codebook, usage, strength=0.5, bound=0.5).tolist() == [0]


@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_the_lowest_score_is_the_first_of_equal_ones(count: int, codes: int, seed: int) -> None:
    """Against argmin over whole numbers, where many scores are equal, zeros of both signs among them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-2, 3, (count, codes), generator=generator).float()
    scores[scores == 0] *= -1.0

    torch.testing.assert_close(assign.lowest(scores), scores.argmin(dim=1))
