"""Each level quantizes what the levels before it left over."""

import pytest
import torch

from sidrec.quantization.residual import ResidualQuantizer


def quantizer(num_levels: int = 3, codebook_size: int = 6, dim: int = 4, seed: int = 0) -> ResidualQuantizer:
    made = ResidualQuantizer(num_levels, codebook_size, dim)
    with torch.no_grad():
        made.codebooks.copy_(torch.randn(made.codebooks.shape, generator=torch.Generator().manual_seed(seed)))
    return made


def rows(count: int = 50, dim: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_codes_are_those_of_greedy_brute_force() -> None:
    """Level by level, one vector at a time, by the definition."""
    made, vectors = quantizer(), rows()
    codes = made(vectors).codes

    for vector, found in zip(vectors, codes, strict=True):
        residual = vector
        for level, codebook in enumerate(made.codebooks.detach()):
            expected = int((residual - codebook).square().sum(dim=-1).argmin())
            assert int(found[level]) == expected
            residual = residual - codebook[expected]


def test_residuals_and_codewords_add_up() -> None:
    """A level's residual minus its codeword is the next one's residual; the total is the sum of codewords."""
    made, vectors = quantizer(), rows()
    result = made(vectors)

    torch.testing.assert_close(result.residuals[:, 0], vectors)
    torch.testing.assert_close(result.residuals[:, 1:], (result.residuals - result.codewords)[:, :-1])
    torch.testing.assert_close(result.total, result.codewords.sum(dim=1))
    levels = torch.arange(3)
    torch.testing.assert_close(result.codewords, made.codebooks[levels, result.codes])


def test_more_levels_lose_less() -> None:
    """After k-means initialisation every level lowers the error."""
    vectors = rows(400, 8)
    made = ResidualQuantizer(3, 16, 8)
    made.initialise(vectors, seed=0, iterations=30)
    with torch.no_grad():
        result = made(vectors)
    errors = [float(result.residuals[:, level].square().sum()) for level in range(3)]
    errors.append(float((vectors - result.total).square().sum()))

    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.5 * errors[0]


def test_uniform_usage_leaves_the_codes_alone_and_crowding_does_not() -> None:
    """The adjustment acts through usage only."""
    made, vectors = quantizer(), rows()
    plain = made(vectors).codes
    assert torch.equal(made(vectors, strength=0.5, bound=0.5).codes, plain)

    made.count_usage(plain, decay=0.0)
    assert not torch.equal(made(vectors, strength=2.0, bound=0.9).codes, plain)


def test_a_codeword_learns_from_its_own_level_only() -> None:
    """The second level's error has no gradient to the first level's codewords, though they made its residual."""
    made, vectors = quantizer(), rows().requires_grad_()
    result = made(vectors)
    (result.residuals[:, 1] - result.codewords[:, 1]).square().sum().backward()
    gradient = made.codebooks.grad
    assert gradient is not None

    assert float(gradient[0].abs().sum()) == 0
    assert float(gradient[1].abs().sum()) > 0


def test_usage_counts_each_level() -> None:
    """With decay 0 the averages are the batch's shares, level by level."""
    made = quantizer(num_levels=2, codebook_size=3)
    made.count_usage(torch.tensor([[0, 2], [0, 1], [1, 2], [0, 2]]), decay=0.0)

    torch.testing.assert_close(made.usage, torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]]))


def test_revival_uses_every_code_of_the_first_level() -> None:
    """A level that begins with far-off codewords serves vectors with all of them afterwards."""
    made, vectors = quantizer(num_levels=2, codebook_size=8), rows(100)
    with torch.no_grad():
        made.codebooks[:, 3:] += 1000
    assert len(made(vectors).codes[:, 0].unique()) <= 3

    assert made.revive(vectors) >= 5
    assert len(made(vectors).codes[:, 0].unique()) == 8
    assert made.revive(vectors) <= 2


def test_usage_stays_a_distribution_and_moves_towards_the_batch() -> None:
    """The moving average sums to 1 and its worked value is .9 old + .1 new."""
    made = ResidualQuantizer(1, 2, 3)
    made.count_usage(torch.tensor([[0], [0], [0], [1]]), decay=0.9)

    torch.testing.assert_close(made.usage[0], torch.tensor([0.525, 0.475]))
    assert float(made.usage.sum()) == pytest.approx(1)
