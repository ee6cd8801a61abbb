"""Dropout drops its share, keeps the mean, and is repeated by torch's seed."""

import pytest
import torch

from sidrec.nn.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_the_share_that_is_dropped_is_the_rate_to_a_256th(rate: float) -> None:
    torch.manual_seed(0)
    n = 1_000_001
    dropped = float((Dropout(rate)(torch.ones(n)) == 0).float().mean())

    # Four standard deviations of a share of n draws.
    assert abs(dropped - round(rate * 256) / 256) < 4 * (rate * (1 - rate) / n) ** 0.5


def test_the_expectation_stays() -> None:
    torch.manual_seed(0)
    n = 1_000_000
    assert abs(float(Dropout(0.3)(torch.ones(n)).mean()) - 1) < 4 * (0.3 / 0.7 / n) ** 0.5


def test_neighbours_are_dropped_independently() -> None:
    """Eight elements share a random word; their bits must not."""
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(8_000_000)) == 0).view(-1, 8).float()

    correlation = torch.corrcoef(dropped.T)
    assert float((correlation - torch.eye(8)).abs().max()) < 5 / 1_000_000**0.5


def test_gradients_pass_where_values_do() -> None:
    torch.manual_seed(0)
    inputs = torch.ones(1000, requires_grad=True)
    out = Dropout(0.5)(inputs)
    out.sum().backward()

    torch.testing.assert_close(inputs.grad, out.detach())


def test_the_seed_decides_the_mask() -> None:
    masks = []
    for _ in range(2):
        torch.manual_seed(7)
        masks.append(Dropout(0.5)(torch.ones(3, 5)))

    assert torch.equal(*masks)


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    inputs = torch.randn(100)

    assert torch.equal(Dropout(0.5).eval()(inputs), inputs)
    assert torch.equal(Dropout(0.0)(inputs), inputs)


def test_a_rate_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dropout(1.0)
