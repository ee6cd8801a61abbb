"""Which slot a step takes."""

import pytest
import torch

from sidrec.systems.reg4rec.order import choose, preference

LOG_PROBS = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]]]).log()
FREE = torch.tensor([[True, True, True]])
SALT = torch.tensor([3])


def test_the_surest_free_slot_is_taken() -> None:
    taken = []
    free = FREE
    for _ in range(3):
        slot = choose(preference("confidence", LOG_PROBS, free, SALT), 0.0, 1.0)
        taken.append(slot.item())
        free = free.scatter(-1, slot[..., None], False)

    assert taken == [1, 2, 0]


def test_a_fixed_order_is_that_of_the_slots() -> None:
    assert choose(preference("fixed", LOG_PROBS, torch.tensor([[False, True, True]]), SALT), 0.0, 1.0).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_exploration_draws_by_confidence(temperature: float) -> None:
    """Shares of 20,000 draws lie within their 99.9 % bound of (1-e) [best] + e conf^(1/T) / sum."""
    torch.manual_seed(0)
    rows = 20_000
    free = torch.tensor([[True, False, True]]).expand(rows, -1)
    wanted = preference("confidence", LOG_PROBS.expand(rows, -1, -1), free, SALT.expand(rows))
    counts = choose(wanted, 0.4, temperature).bincount(minlength=3)
    powers = torch.tensor([0.5, 0.0, 0.7]) ** (1 / temperature)
    expected = 0.4 * powers / powers.sum() + 0.6 * torch.tensor([0.0, 0.0, 1.0])

    assert counts[1] == 0
    assert (counts / rows - expected).abs().max() < 3.3 * (0.25 / rows) ** 0.5


def test_random_orders_take_every_slot_equally_often() -> None:
    """Over 6,000 salts each of the six orders of three slots comes near a sixth of the time."""
    salts = torch.arange(6000)
    wanted = preference("random", LOG_PROBS.expand(6000, -1, -1), FREE.expand(6000, -1), salts)
    orders = wanted.argsort(dim=-1, descending=True) @ torch.tensor([9, 3, 1])
    counts = torch.stack([(orders == order).sum() for order in orders.unique()])

    assert len(counts) == 6
    assert (counts.double() / 6000 - 1 / 6).abs().max() < 4 * (5 / 36 / 6000) ** 0.5
