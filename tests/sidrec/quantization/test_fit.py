"""What holds of every kind of fit: it repeats itself, encodes items one by one, and takes what catalogues hold."""

from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization.config import CodebookConfig, QuantizerKind
from sidrec.quantization.fit import encoder_of, fit_quantizer, one_thread
from sidrec.quantization.quantizer import Fitted
from sidrec.quantization.sharding import checksum

KINDS = get_args(QuantizerKind)
WIDTH, LEVELS, SIZE = 6, 2, 8


def config_of(kind: str) -> CodebookConfig:
    return CodebookConfig(
        quantizer=kind,
        num_levels=LEVELS,
        codebook_size=SIZE,
        code_dim=4,
        hidden_dims=(12,),
        kmeans_iterations=10,
        warmup_epochs=1,
        epochs=4,
        check_every=2,
        batch_size=16,
    )


def vectors_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)))


def checksums(fitted: Fitted) -> list[str]:
    encoder = fitted.quantizer.encoder
    weights = [] if encoder is None else list(encoder.state_dict().values())
    return [checksum(tensor) for tensor in (fitted.quantizer.codebooks, *weights)]


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_one_seed_gives_one_quantizer(kind: str, count: int, seed: int) -> None:
    """The same bytes, whatever the caller's threads and random state, and these are as before afterwards."""
    vectors = vectors_of(count, seed)
    one = fit_quantizer(vectors, config_of(kind), seed=seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(seed + 1)
    before = torch.random.get_rng_state()
    try:
        two = fit_quantizer(vectors, config_of(kind), seed=seed)
        threads_after = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)

    assert checksums(one) == checksums(two)
    assert one.history == two.history
    assert torch.equal(torch.random.get_rng_state(), before)
    assert threads_after == 2


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(20, 60), st.integers(0, 1000), st.data())
@settings(max_examples=6, deadline=None)
def test_an_items_codes_do_not_depend_on_the_others(kind: str, count: int, seed: int, data: st.DataObject) -> None:
    """Encoding some of the items gives the codes that they have among all."""
    vectors = vectors_of(count, seed)
    quantizer = fit_quantizer(vectors, config_of(kind), seed=0).quantizer
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count))

    assert torch.equal(quantizer.encode(vectors[rows]), quantizer.encode(vectors)[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_to_load_into_has_the_fitted_ones_shape(kind: str) -> None:
    """Weights of a fit go into a fresh encoder, which then gives the same latent vectors; k-means has none."""
    vectors = vectors_of(30)
    fitted = fit_quantizer(vectors, config_of(kind), seed=0).quantizer
    fresh = encoder_of(config_of(kind), WIDTH)

    assert (fresh is None) == (fitted.encoder is None) == kind.endswith("kmeans")
    if fresh is not None and fitted.encoder is not None:
        fresh.load_state_dict(fitted.encoder.state_dict())
        assert torch.equal(fresh(vectors), fitted.latent(vectors))


@pytest.mark.parametrize("kind", KINDS)
def test_the_quantizer_is_of_the_kind_and_size_asked_for(kind: str) -> None:
    """Its codes are those of every level or slot, within the codebook."""
    vectors = vectors_of(40)
    quantizer = fit_quantizer(vectors, config_of(kind), seed=0).quantizer
    codes = quantizer.encode(vectors)

    assert (quantizer.kind, quantizer.num_levels, quantizer.codebook_size) == (kind, LEVELS, SIZE)
    assert codes.shape == (40, LEVELS)
    assert 0 <= int(codes.min()) <= int(codes.max()) < SIZE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param(torch.ones(20, WIDTH), id="all equal"),
        pytest.param(torch.zeros(20, WIDTH), id="all zero"),
        pytest.param(vectors_of(1), id="one item"),
        pytest.param(vectors_of(3), id="fewer items than codes"),
        pytest.param(vectors_of(4).repeat(6, 1), id="duplicates"),
    ],
)
def test_poor_catalogues_are_fitted(kind: str, vectors: torch.Tensor) -> None:
    """Every number is finite, and equal vectors get equal codes."""
    quantizer = fit_quantizer(vectors, config_of(kind), seed=0).quantizer
    codes = quantizer.encode(vectors)
    equal = (vectors[:, None] == vectors[None]).all(dim=-1)

    assert torch.isfinite(quantizer.codebooks).all()
    assert torch.isfinite(quantizer.latent(vectors)).all()
    assert (codes[:, None] == codes[None]).all(dim=-1)[equal].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_refused(kind: str, broken: float) -> None:
    """The error counts them and names the first row."""
    vectors = vectors_of(30)
    vectors[7, 2] = vectors[20, 0] = broken

    with pytest.raises(CheckFailedError, match="2 item vectors are not finite, row 7 first"):
        fit_quantizer(vectors, config_of(kind), seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_vectors_are_refused(kind: str) -> None:
    """Nothing to fit on is the caller's error."""
    with pytest.raises(UsageError, match="nothing to fit a codebook on"):
        fit_quantizer(vectors_of(0), config_of(kind), seed=0)


def test_threads_come_back_after_an_error() -> None:
    """A fit that fails leaves the caller's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UsageError):
            fit_quantizer(vectors_of(0), config_of("rqvae"), seed=0)
        after = torch.get_num_threads()
        with one_thread():
            inside = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)

    assert (after, inside) == (2, 1)
