"""Balanced assignment keeps both bounds and costs next to the least possible."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.graph.python import min_cost_flow

from sidrec.errors import UsageError
from sidrec.quantization.assign import squared_distances
from sidrec.quantization.kmeans import kmeans
from sidrec.quantization.prices import balanced_assignment


def cheapest(costs: torch.Tensor, lower: int, upper: int) -> float:
    """Return the least total cost under the bounds, by exact min-cost flow over costs scaled to whole numbers."""
    count, codes = costs.shape
    flow, scale = min_cost_flow.SimpleMinCostFlow(), 100_000
    source, sink, over = count + codes, count + codes + 1, count + codes + 2
    for row in range(count):
        flow.add_arc_with_capacity_and_unit_cost(source, row, 1, 0)
        for code in range(codes):
            flow.add_arc_with_capacity_and_unit_cost(row, count + code, 1, round(float(costs[row, code]) * scale))
    for code in range(codes):
        # What is above the lower bound goes through one more node, which takes no more than is left.
        flow.add_arc_with_capacity_and_unit_cost(count + code, sink, lower, 0)
        flow.add_arc_with_capacity_and_unit_cost(count + code, over, upper - lower, 0)
    flow.add_arc_with_capacity_and_unit_cost(over, sink, count - codes * lower, 0)
    flow.set_node_supply(source, count)
    flow.set_node_supply(sink, -count)
    assert flow.solve() == flow.OPTIMAL
    return float(flow.optimal_cost()) / scale


def mixture(count: int, codes: int, seed: int) -> torch.Tensor:
    """Return squared distances of clustered vectors to the centres that k-means finds in them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3 * codes, 24, generator=generator)
    own = torch.randint(3 * codes, (count,), generator=generator)
    vectors = centres[own] + torch.randn(count, 24, generator=generator)
    return squared_distances(vectors, kmeans(vectors, codes, seed=seed, iterations=5).centres)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 4), st.integers(0, 4), st.integers(0, 1000))
@settings(max_examples=120, deadline=None)
def test_both_bounds_hold_exactly(count: int, codes: int, below: int, above: int, seed: int) -> None:
    """Whatever the costs, equal ones too, every code is taken between `lower` and `upper` times."""
    lower, upper = max(0, count // codes - below), -(-count // codes) + above
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randint(0, 4, (count, codes), generator=generator).float()
    chosen, _ = balanced_assignment(costs, lower, upper)
    sizes = torch.bincount(chosen, minlength=codes)

    assert int(sizes.min()) >= lower
    assert int(sizes.max()) <= upper


@pytest.mark.parametrize("seed", range(4))
def test_the_cost_is_next_to_the_least(seed: int) -> None:
    """Against exact min-cost flow on 400 clustered vectors and 16 codes: within 1 % at this size."""
    costs = mixture(400, 16, seed)
    chosen, _ = balanced_assignment(costs, 24, 26)
    cost = float(costs.gather(1, chosen[:, None]).sum())

    assert cost <= 1.01 * cheapest(costs, 24, 26)


def test_old_prices_start_near_the_end() -> None:
    """A second assignment of the same costs from the first one's prices needs one iteration to be as good."""
    costs = mixture(600, 12, 0)
    chosen, prices = balanced_assignment(costs, 50, 50)
    again, _ = balanced_assignment(costs, 50, 50, prices=prices, iterations=1)

    np.testing.assert_array_equal(again.numpy(), chosen.numpy())


def test_without_need_nothing_moves() -> None:
    """Where plain assignment is within the bounds, it is the answer."""
    costs = mixture(100, 5, 1)
    chosen, prices = balanced_assignment(costs, 0, 100)

    torch.testing.assert_close(chosen, costs.argmin(dim=1))
    assert not prices.any()


def test_impossible_bounds_are_refused() -> None:
    """Ten vectors do not fit on three codes of at most three; the numbers are named."""
    with pytest.raises(UsageError, match="10 vectors cannot be spread over 3 codes with 0 to 3 each"):
        balanced_assignment(torch.zeros(10, 3), 0, 3)


@pytest.mark.parametrize("costs", [torch.zeros(600, 12), torch.arange(600.0)[:, None].expand(600, 12)])
def test_equal_costs_are_spread_all_the_same(costs: torch.Tensor) -> None:
    """Where every code costs the same no price tells them apart, and the bounds still hold."""
    chosen, prices = balanced_assignment(costs, 50, 50)

    assert torch.bincount(chosen, minlength=12).tolist() == [50] * 12
    assert prices.isfinite().all()


def test_costs_of_many_vectors_are_within_two_thousandths() -> None:
    """At 3,000 vectors and 32 codes the cost is within .2 % of exact min-cost flow."""
    costs = mixture(3000, 32, 0)
    chosen, _ = balanced_assignment(costs, 93, 94)
    cost = float(costs.gather(1, chosen[:, None]).sum())

    assert cost <= 1.002 * cheapest(costs, 93, 94)
