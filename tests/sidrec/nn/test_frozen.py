"""Frozen stacks give what the blocks give, in float64; rows share their user's memory and keep their past."""

import pytest
import torch

from sidrec.nn import frozen as frozen_module
from sidrec.nn.attention import DistanceBias, KeyValues
from sidrec.nn.blocks import DecoderBlock, EncoderBlock
from sidrec.nn.frozen import DecoderRows, FrozenBias, FrozenDecoder, FrozenEncoder, unit, unit_floor
from sidrec.nn.norm import RMSNorm

DIM, HEADS = 12, 3
SHAPE = (DIM, HEADS, 20, 0.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def norm() -> RMSNorm:
    made = RMSNorm(DIM).double()
    torch.nn.init.normal_(made.weight)
    return made


def blocks(kind: type, head_dim: int | None = None) -> torch.nn.ModuleList:
    made = torch.nn.ModuleList([kind(*SHAPE, head_dim) for _ in range(2)]).double().eval()
    for name, weight in made.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight)
    return made


def test_a_unit_vector_is_an_rms_norm_over_the_root_of_its_width() -> None:
    """Epsilon included, which is half of the mean square of the smallest row here."""
    inputs = torch.randn(4, DIM, dtype=torch.float64) * torch.tensor([[10.0], [1.0], [0.1], [1e-3]])

    expected = RMSNorm(DIM).double()(inputs) / DIM**0.5

    torch.testing.assert_close(unit(inputs, unit_floor(DIM, inputs)), expected)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_a_frozen_bias_is_its_module(causal: bool) -> None:
    """Repeated ranks, padding among queries and keys, distances beyond the farthest one with a bias of its own."""
    bias = DistanceBias(HEADS, 3, causal=causal)
    torch.nn.init.normal_(bias.table)
    ranks = torch.tensor([[0, 0, 1, 2, 5], [3, -1, 0, -1, -1]])

    frozen = FrozenBias(bias, 6)

    assert torch.equal(frozen(ranks, ranks), bias(ranks, ranks))
    assert torch.equal(frozen(ranks[:, :1], ranks), bias(ranks[:, :1], ranks))


@torch.no_grad()
@pytest.mark.parametrize("long", [128, 4])
@pytest.mark.parametrize("head_dim", [None, 6])
def test_a_frozen_encoder_is_its_blocks(head_dim: int | None, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a bias that hides some keys, by either way of attending; what goes in is not written to."""
    monkeypatch.setattr(frozen_module, "LONG", long)
    stack, final = blocks(EncoderBlock, head_dim), norm()
    inputs = torch.randn(2, 5, DIM, dtype=torch.float64)
    before = inputs.clone()
    bias = torch.randn(2, HEADS, 5, 5, dtype=torch.float64)
    bias[1, :, :, 3:] = -torch.inf
    expected = inputs
    for block in stack:
        expected = block(expected, bias)

    out = FrozenEncoder(stack, final)(inputs, bias) * final.weight * DIM**0.5

    torch.testing.assert_close(out, final(expected))
    assert torch.equal(inputs, before)


@torch.no_grad()
@pytest.mark.parametrize("head_dim", [None, 6])
def test_frozen_rows_are_the_decoder_blocks(head_dim: int | None) -> None:
    """Three positions with a reordering between them, two users of three rows each; every state is compared."""
    stack, encoder_norm = blocks(DecoderBlock, head_dim), norm()
    raw = torch.randn(2, 4, DIM, dtype=torch.float64)
    encoded = unit(raw, unit_floor(DIM, raw))
    hidden = encoder_norm(raw)
    bias = torch.randn(2, HEADS, 1, 4, dtype=torch.float64)
    bias[0, :, :, 2:] = -torch.inf
    memory = [block.cross_attention.remember(hidden) for block in stack]
    caches: list[KeyValues | None] = [None, None]
    frozen = FrozenDecoder(stack, encoder_norm)
    rows = DecoderRows.begin(frozen, frozen.remember(encoded, bias), num_steps=3)
    origins = [None, torch.zeros(2, 3, dtype=torch.long), torch.tensor([[2, 0, 0], [1, 1, 2]])]
    for origin in origins:
        if origin is not None:
            earlier = caches[0].keys.shape[0] // 2  # type: ignore[union-attr]
            flat = (origin + earlier * torch.arange(2)[:, None]).flatten()
            caches = [cache.rows(flat) for cache in caches if cache is not None]
            rows = rows.follow(origin)
        inputs = torch.randn(2, 1 if origin is None else 3, DIM, dtype=torch.float64)
        expected = inputs
        for layer, block in enumerate(stack):
            expected, caches[layer] = block(expected, caches[layer], memory[layer], bias)

        state = rows.feed(inputs.flatten(0, 1))

        torch.testing.assert_close(state, unit(expected.flatten(0, 1), frozen.floor))


@torch.no_grad()
def test_following_leaves_the_rows_that_were_followed() -> None:
    """A search may begin again from rows that another went on from."""
    stack = blocks(DecoderBlock)
    frozen = FrozenDecoder(stack, norm())
    memory = frozen.remember(torch.randn(1, 4, DIM, dtype=torch.float64), torch.zeros(1, HEADS, 1, 4).double())
    start = DecoderRows.begin(frozen, memory, num_steps=2)
    start.feed(torch.randn(1, DIM, dtype=torch.float64))
    inputs = torch.randn(2, DIM, dtype=torch.float64)
    both = torch.zeros(1, 2, dtype=torch.long)

    once, again = (start.follow(both).feed(inputs.clone()) for _ in range(2))

    assert torch.equal(once, again)


@torch.no_grad()
def test_memory_does_not_grow_with_rows() -> None:
    """Fifty rows read the very tensors that one row reads."""
    frozen = FrozenDecoder(blocks(DecoderBlock), norm())
    memory = frozen.remember(torch.randn(1, 4, DIM, dtype=torch.float64), torch.zeros(1, HEADS, 1, 4).double())
    start = DecoderRows.begin(frozen, memory, num_steps=2)
    start.feed(torch.randn(1, DIM, dtype=torch.float64))

    rows = start.follow(torch.zeros(1, 50, dtype=torch.long))

    assert rows.memory is memory
    assert rows.past.block.shape == (2, 2, 2, 50, DIM)
