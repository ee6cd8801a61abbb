"""The quantizer agrees with its definition, one item and one code at a time, in levels and in slots."""

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from sidrec.quantization.config import QuantizerKind
from sidrec.quantization.quantizer import Quantized, Quantizer

KINDS: tuple[QuantizerKind, ...] = ("rqvae", "mpq")
LEVELS, SIZE, DIM = 3, 5, 4


def quantizer_of(kind: QuantizerKind, seed: int = 0, encoder: nn.Module | None = None) -> Quantizer:
    generator = torch.Generator().manual_seed(seed)
    return Quantizer(kind, torch.randn(LEVELS, SIZE, DIM, generator=generator, dtype=torch.float64), encoder)


def latent_of(kind: QuantizerKind, count: int, seed: int = 1) -> torch.Tensor:
    shape = (count, LEVELS, DIM) if kind == "mpq" else (count, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codes_of(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(SIZE, (count, LEVELS), generator=torch.Generator().manual_seed(seed))


def error(quantizer: Quantizer, latent: torch.Tensor, codes: tuple[int, ...]) -> float:
    """By the definition: each slot's own distance, or that of the sum of all levels' codewords."""
    words = [quantizer.codebooks[level, code] for level, code in enumerate(codes)]
    if quantizer.parallel:
        return sum(float((part - word).square().sum()) for part, word in zip(latent, words, strict=True))
    return float((latent - sum(words)).square().sum())


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_nearest_by_brute_force(kind: QuantizerKind) -> None:
    """Level by level on what is left, or slot by slot on the slot's part; residuals and codewords are what was seen."""
    quantizer, latent = quantizer_of(kind), latent_of(kind, 30)
    result = quantizer.quantize(latent)

    for item, vector in enumerate(latent):
        left = vector
        for level, codebook in enumerate(quantizer.codebooks):
            seen = vector[level] if kind == "mpq" else left
            nearest = min(range(SIZE), key=lambda code: float((seen - codebook[code]).square().sum()))
            assert int(result.codes[item, level]) == nearest
            torch.testing.assert_close(result.residuals[item, level], seen)
            assert torch.equal(result.codewords[item, level], codebook[nearest])
            left = left if kind == "mpq" else left - codebook[nearest]


def test_slots_of_least_error_are_the_best_of_all_combinations() -> None:
    """In slots the nearest codes are the best semantic ID of all 125; in levels they need not be."""
    quantizer, latent = quantizer_of("mpq"), latent_of("mpq", 5)
    codes = quantizer.quantize(latent).codes

    for vector, found in zip(latent, codes.tolist(), strict=True):
        every = itertools.product(range(SIZE), repeat=LEVELS)
        assert tuple(found) == min(every, key=lambda combination: error(quantizer, vector, combination))


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_the_definition(kind: QuantizerKind) -> None:
    """For any codes, not the nearest alone."""
    quantizer, latent, codes = quantizer_of(kind), latent_of(kind, 20), codes_of(20)
    expected = [error(quantizer, vector, tuple(row)) for vector, row in zip(latent, codes.tolist(), strict=True)]

    torch.testing.assert_close(quantizer.errors(latent, codes), torch.tensor(expected, dtype=torch.float64))


@given(st.sampled_from(KINDS), st.integers(0, LEVELS - 1), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_errors_of_a_change_are_those_of_the_changed_codes(
    kind: QuantizerKind, level: int, count: int, seed: int
) -> None:
    """Every code at any one level, the others as they are, costs what the changed semantic ID costs."""
    quantizer, latent, codes = quantizer_of(kind, seed), latent_of(kind, count, seed + 1), codes_of(count, seed + 2)
    found = quantizer.errors_of_change(latent, codes, level)

    for item, row in enumerate(codes.tolist()):
        changed = [(*row[:level], code, *row[level + 1 :]) for code in range(SIZE)]
        expected = torch.tensor([error(quantizer, latent[item], one) for one in changed], dtype=torch.float64)
        torch.testing.assert_close(found[item], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_a_code_changes_no_error(kind: QuantizerKind) -> None:
    """Among the errors of a change is the one of the codes as they are."""
    quantizer, latent, codes = quantizer_of(kind), latent_of(kind, 20), codes_of(20)
    kept = [
        quantizer.errors_of_change(latent, codes, level).gather(1, codes[:, level : level + 1])[:, 0]
        for level in range(LEVELS)
    ]

    assert all(torch.allclose(one, quantizer.errors(latent, codes)) for one in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_beyond_the_levels_do_not_count(kind: QuantizerKind) -> None:
    """An extra code that only tells items apart has no codeword and no error."""
    quantizer, latent, codes = quantizer_of(kind), latent_of(kind, 20), codes_of(20)
    longer = torch.cat([codes, torch.full((20, 1), 3)], dim=1)

    assert torch.equal(quantizer.errors(latent, longer), quantizer.errors(latent, codes))


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_the_error_of_codewords_of_length_zero(kind: QuantizerKind) -> None:
    """Errors are a share of it: nothing explained is a share of one."""
    quantizer, latent = quantizer_of(kind), latent_of(kind, 20)
    nothing = quantizer.with_codebooks(torch.zeros_like(quantizer.codebooks))

    torch.testing.assert_close(quantizer.energy(latent), nothing.errors(latent, codes_of(20)))


def test_other_codewords_keep_the_latent_space() -> None:
    """A quantizer with other codewords encodes by the same encoder and leaves the first one alone."""
    before = quantizer_of("rqvae", encoder=nn.Linear(7, DIM, dtype=torch.float64))
    after = before.with_codebooks(quantizer_of("rqvae", seed=9).codebooks)
    vectors = torch.randn(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert torch.equal(after.latent(vectors), before.latent(vectors))
    assert not torch.equal(after.codebooks, before.codebooks)


def test_without_an_encoder_a_vector_is_its_own_latent() -> None:
    """The codes of item vectors are those of the vectors themselves."""
    quantizer, vectors = quantizer_of("rqvae"), latent_of("rqvae", 8)

    assert torch.equal(quantizer.latent(vectors), vectors)
    assert torch.equal(quantizer.encode(vectors), quantizer.quantize(vectors).codes)


def test_no_items_have_no_codes() -> None:
    """An empty batch gives an empty table of all levels."""
    quantizer = quantizer_of("rqvae", encoder=nn.Linear(7, DIM, dtype=torch.float64))

    assert quantizer.encode(torch.zeros(0, 7, dtype=torch.float64)).shape == (0, LEVELS)


def test_the_total_is_the_sum_over_levels() -> None:
    """What a residual quantizer stands for is the sum of its codewords."""
    words = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])

    assert Quantized(torch.zeros(1, 2, dtype=torch.int64), words, words).total.tolist() == [[1.0, 2.0]]
