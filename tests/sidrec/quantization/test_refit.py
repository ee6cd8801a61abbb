"""Codewords fitted again keep the numbers of the old ones that they are nearest to."""

import itertools

import torch

from sidrec.quantization.quantizer import Quantizer
from sidrec.quantization.refit import match_codes, refit


def test_the_matching_is_the_cheapest_of_all() -> None:
    """Against trying every permutation of five codewords."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        old, new = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
        costs = torch.cdist(old, new).square()
        best = min(itertools.permutations(range(5)), key=lambda p: sum(float(costs[i, p[i]]) for i in range(5)))

        assert tuple(match_codes(old, new)) == best


def test_permuted_codewords_get_their_numbers_back() -> None:
    """A fit that found the same codewords in another order is the same codebook."""
    old = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(old[order][match_codes(old, old[order])], old)


def test_codewords_follow_their_items_and_keep_their_numbers() -> None:
    """Two groups drift by 1: both codewords go with them; items' codes are the same before and after."""
    old = Quantizer("residual_kmeans", torch.tensor([[[0.0, 0.0], [10.0, 0.0]]]))
    latent = torch.tensor([[0.5, 1.0], [-0.5, 1.0], [9.5, 1.0], [10.5, 1.0]])
    fresh = refit(old, latent, iterations=10)

    torch.testing.assert_close(fresh.codebooks, torch.tensor([[[0.0, 1.0], [10.0, 1.0]]]))
    assert torch.equal(fresh.quantize(latent).codes, old.quantize(latent).codes)


def test_the_error_never_rises() -> None:
    """On any vectors, residual or parallel, fitted codewords explain at least what the old ones did."""
    for kind, shape in (("residual_kmeans", (200, 4)), ("mpq", (200, 3, 4))):
        generator = torch.Generator().manual_seed(0)
        latent = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)
        books = torch.nn.functional.normalize(torch.randn(3, 8, 4, generator=generator), dim=-1)
        old = Quantizer(kind, books)  # type: ignore[arg-type]
        fresh = refit(old, latent, iterations=20)
        before = old.errors(latent, old.quantize(latent).codes).mean()

        assert fresh.errors(latent, fresh.quantize(latent).codes).mean() < before


def test_a_dead_code_comes_to_life() -> None:
    """A codeword that no item is near to moves to the worst served item."""
    old = Quantizer("residual_kmeans", torch.tensor([[[0.0], [500.0]]]))
    fresh = refit(old, torch.tensor([[0.0], [0.2], [4.0]]), iterations=5)

    assert fresh.quantize(torch.tensor([[0.0], [4.0]])).codes[:, 0].unique().numel() == 2
