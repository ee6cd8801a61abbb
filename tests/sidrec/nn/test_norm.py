"""The closed form is torch's own RMS normalisation, forwards and backwards."""

import torch
from torch import nn

from sidrec.nn.norm import EPSILON, RMSNorm


def test_values_and_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(12), nn.RMSNorm(12, eps=EPSILON)
    with torch.no_grad():
        ours.weight.normal_()
        theirs.weight.copy_(ours.weight)
    rows = torch.randn(3, 5, 12)
    first, second = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    weights = torch.randn(3, 5, 12)
    (ours(first) * weights).sum().backward()
    (theirs(second) * weights).sum().backward()

    torch.testing.assert_close(ours(rows), theirs(rows))
    torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(6).double()

    assert torch.autograd.gradcheck(norm, torch.randn(4, 6, dtype=torch.float64, requires_grad=True), atol=1e-4)


def test_a_zero_vector_stays_zero() -> None:
    assert torch.equal(RMSNorm(4)(torch.zeros(2, 4)), torch.zeros(2, 4))
