"""Attention against torch's own, and caches against a pass over everything at once."""

import pytest
import torch

from sidrec.nn.attention import Attention, DistanceBias
from sidrec.nn.blocks import DecoderBlock


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(8, 2)


def test_agrees_with_torchs_scaled_dot_product(attention: Attention) -> None:
    """Same projections, the reference kernel."""
    queries, keys = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    bias = torch.randn(3, 1, 4, 5)

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], 2, 4).transpose(1, 2)

    expected = torch.nn.functional.scaled_dot_product_attention(
        heads(attention.query(queries)), heads(attention.key(keys)), heads(attention.value(keys)), attn_mask=bias
    )

    torch.testing.assert_close(
        attention(queries, attention.remember(keys), bias), attention.out(expected.transpose(1, 2).flatten(2))
    )


def test_one_position_at_a_time_is_the_causal_pass() -> None:
    """A decoder row fed position by position gives what one causally masked pass gives."""
    torch.manual_seed(1)
    block = DecoderBlock(8, 2, 16, 0.0).eval()
    inputs, encoded = torch.randn(2, 3, 5, 8), torch.randn(2, 4, 8)
    memory, none = block.cross_attention.remember(encoded), torch.zeros(2, 1, 3, 4)
    cache, steps = None, []
    for position in range(5):
        hidden, cache = block(inputs[:, :, position], cache, memory, none)
        steps.append(hidden)

    normed = block.self_norm(inputs).flatten(0, 1)
    causal = torch.full((5, 5), -torch.inf).triu(1)[None, None]
    attended = block.self_attention(normed, block.self_attention.remember(normed), causal).view(2, 3, 5, 8)
    hidden = inputs + attended
    flat = block.cross_norm(hidden).flatten(1, 2)
    hidden = hidden + block.cross_attention(flat, memory, torch.zeros(2, 1, 1, 4)).view(2, 3, 5, 8)
    expected = hidden + block.ff(block.ff_norm(hidden))

    torch.testing.assert_close(torch.stack(steps, dim=2), expected)


def test_the_future_and_padding_are_hidden() -> None:
    """A key counts iff its rank is real and not later than the query's; equal ranks see each other."""
    bias = DistanceBias(1, 4)(torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 1, 1, -1]]))

    visible = (bias[0, 0] > -torch.inf).int().tolist()

    assert visible == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_a_padding_query_gives_no_nan() -> None:
    """It sees everything, since nothing of it is ever used."""
    bias = DistanceBias(1, 4)(torch.tensor([[-1]]), torch.tensor([[0, -1]]))

    assert bias.softmax(dim=-1).isfinite().all()


def test_far_distances_share_the_last_bias() -> None:
    """Beyond the table's end a history only gets older, not unknown."""
    bias = DistanceBias(1, 2)
    torch.nn.init.normal_(bias.table)

    values = bias(torch.tensor([[9]]), torch.tensor([[0, 6, 7, 8, 9]]))[0, 0, 0]

    torch.testing.assert_close(values, bias.table[0, [2, 2, 2, 1, 0]])
