"""Experts begin with views that share nothing, and each of them works alone."""

import pytest
import torch

from sidrec.quantization.experts import ExpertEncoder, rotated_whitening
from sidrec.quantization.sharding import Shards

normalize = torch.nn.functional.normalize


def vectors(count: int = 300, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, width, generator=generator) @ torch.randn(width, width, generator=generator) + 2


def encoder(width: int, hidden_dims: tuple[int, ...], num_slots: int, code_dim: int) -> ExpertEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ExpertEncoder(width, hidden_dims, num_slots, code_dim)


def test_an_expert_is_a_perceptron_of_its_own() -> None:
    """Slot by slot, the batched products are those of linear layers with ReLU between them, at unit length."""
    made, rows = encoder(12, (10, 8), 3, 4), vectors(5)
    first, (second, third) = made.first, made.further
    outputs = made(rows)

    for slot in range(3):
        hidden = (rows @ first.weight[10 * slot :][:10].T + first.bias[10 * slot :][:10]).relu()
        hidden = (hidden @ second.weight[slot] + second.bias[slot]).relu()
        torch.testing.assert_close(outputs[:, slot], normalize(hidden @ third.weight[slot] + third.bias[slot], dim=-1))


def test_whitened_coordinates_are_uncorrelated_and_of_equal_variance() -> None:
    """Their covariance is the identity and their mean zero; another seed turns them."""
    rows = vectors()
    matrix, offset = rotated_whitening(rows, seed=0, shards=Shards())
    white = rows @ matrix.T + offset
    other, _ = rotated_whitening(rows, seed=1, shards=Shards())

    torch.testing.assert_close(white.T @ white / len(rows), torch.eye(12), atol=1e-2, rtol=0)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(other.T @ other, matrix.T @ matrix, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(other, matrix, atol=0.1)


def test_whitening_does_not_blow_noise_up() -> None:
    """A direction without variance counts as one of a thousandth of the largest; equal vectors give finite numbers."""
    flat = vectors()
    flat[:, 6:] = 0
    matrix, _ = rotated_whitening(flat, seed=0, shards=Shards())
    equal, _ = rotated_whitening(torch.ones(5, 4), seed=0, shards=Shards())

    largest = torch.linalg.eigvalsh(torch.cov(flat.T, correction=0))[-1]
    torch.testing.assert_close(torch.linalg.svdvals(matrix)[0], (1e-3 * largest).rsqrt(), rtol=1e-3, atol=0)
    assert torch.isfinite(equal).all()


@pytest.mark.parametrize("hidden_dims", [(), (24,), (24, 16)])
def test_experts_begin_with_blocks_of_the_coordinates(hidden_dims: tuple[int, ...]) -> None:
    """Each expert's output points as its own block does, at a place of its own; all gates are equal."""
    rows = vectors()
    matrix, offset = rotated_whitening(rows, seed=0, shards=Shards())
    made = encoder(12, hidden_dims, 3, 12)
    made.see_blocks(matrix, offset)
    white = (rows @ matrix.T + offset).unflatten(1, (3, 4))
    outputs = made(rows).detach().unflatten(2, (3, 4))

    for slot in range(3):
        cosines = (normalize(white[:, slot], dim=-1) * outputs[:, slot, slot]).sum(dim=-1)
        assert float(cosines.mean()) > 0.9
    torch.testing.assert_close(made.gates(rows), torch.full((300, 3), 1 / 3))


def test_more_experts_than_coordinates_share_them() -> None:
    """Five experts of two coordinates all see something, and outputs are finite and of length 1."""
    rows = vectors(50, 2)
    made = encoder(2, (6,), 5, 3)
    made.see_blocks(*rotated_whitening(rows, seed=0, shards=Shards()))

    torch.testing.assert_close(made(rows).norm(dim=-1), torch.ones(50, 5))


def test_the_flattened_weights_are_each_experts_own() -> None:
    """Changing one expert's first layer changes its row alone."""
    made = encoder(12, (10,), 3, 4)
    before = made.first_layers().detach().clone()
    with torch.no_grad():
        made.first.weight[10:20] += 1
    changed = (made.first_layers() != before).any(dim=1)

    assert before.shape == (3, 120)
    assert changed.tolist() == [False, True, False]
